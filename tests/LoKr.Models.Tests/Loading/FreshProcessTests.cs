using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Runtime;
using LoKr.Core.Safetensors;
using LoKr.Models.Diffusion;
using LoKr.Models.Families;
using LoKr.Models.Loading;
using LoKr.Testing;
using Xunit;

namespace LoKr.Models.Tests.Loading;

/// <summary>Every entry point that reads or builds tensors loads libtorch without being asked; each entry point is the first call of a process of its own.</summary>
public sealed class FreshProcessTests
{
    private const string FolderVariable = "LOKR_TEST_FOLDER";

    private static readonly Dictionary<string, Action<string>> s_firstCalls = new()
    {
        ["checkpoint"] = folder => CheckpointReader.Open(Path.Combine(folder, "model")).Read("embeddings.word_embeddings.weight").Dispose(),
        ["adapter folder"] = folder =>
        {
            using PeftAdapterFolder adapter = PeftAdapterFolder.Read(Path.Combine(folder, "adapter"));
            adapter.Tensors.Read(adapter.Tensors.Entries.Keys.First()).Dispose();
        },
        ["adapter inspector"] = folder => AdapterInspector.Inspect(Path.Combine(folder, "adapter")),
        ["adapter validator"] = folder => Assert.True(AdapterValidator.Check(Path.Combine(folder, "adapter"), new AdapterCheckOptions { Values = true }).IsValid),
        ["adapter converter"] = folder => AdapterConverter.Convert(
            Path.Combine(folder, "adapter"), Path.Combine(folder, "converted.safetensors"), AdapterLayout.Peft, new AdapterConvertOptions(), out _),
        ["model"] = folder => ModelLoader.Load(Path.Combine(folder, "model"), new ModelLoadOptions { Labels = ["a", "b"] }).Dispose(),
        ["module tree"] = folder => ModelLoader.Build(ModelConfig.Load(Path.Combine(folder, "model")), new ModelBuildOptions { Labels = ["a", "b"] }).Dispose(),
        ["base of a merge"] = folder => Assert.NotNull(BaseModel.Read(Path.Combine(folder, "model")).HeadClass),
        ["scheduler"] = _ => DiffusionScheduler.Create(new ModelConfig(new JsonObject { ["_class_name"] = "DDIMScheduler", ["steps_offset"] = 1 }), 4),
        ["device"] = _ => DeviceSelector.Select("auto"),
    };

    public static TheoryData<string> EntryPoints => [.. s_firstCalls.Keys];

    [Theory]
    [MemberData(nameof(EntryPoints))]
    public async Task The_first_call_of_a_process_loads_the_runtime(string entryPoint)
    {
        Assert.SkipWhen(Fixtures.Repository is null, "The tests run outside the repository.");
        using TempFolder folder = new();
        string model = Path.Combine(Fixtures.Repository!, "examples", "models", "tiny-encoder");
        Directory.CreateDirectory(folder["model"]);
        foreach (string file in Directory.EnumerateFiles(model))
        {
            File.Copy(file, folder["model", Path.GetFileName(file)]);
        }

        using (LoKrModel source = ModelLoader.Load(model, new ModelLoadOptions { Labels = ["a", "b"] }))
        {
            source.AddAdapter(new LoKrConfig { TargetModules = ModuleSelector.FromNames(["query"]), InitWeights = InitWeights.Random });
            AdapterExporter.Export(source, "default", folder["adapter"], AdapterLayout.Peft);
        }

        await TestProcess.RunTestAsync(typeof(FreshProcessTests), nameof(First_call), (TorchFixture.FreshProcess, entryPoint), (FolderVariable, folder.Path));
    }

    /// <summary>Runs in the process of <see cref="The_first_call_of_a_process_loads_the_runtime"/>.</summary>
    [Fact(Explicit = true)]
    public void First_call()
    {
        Assert.Null(TorchRuntime.Current);
        s_firstCalls[Environment.GetEnvironmentVariable(TorchFixture.FreshProcess)!](Environment.GetEnvironmentVariable(FolderVariable)!);
    }
}
