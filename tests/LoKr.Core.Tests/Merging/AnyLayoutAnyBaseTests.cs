using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Merging;

/// <summary>
/// Every weight that a table of names has, in a small folder with published names and in a small single file with the names of its authors: an adapter
/// of PEFT, and what it becomes for every program and back, change both by the same bits, and leave nothing out.
/// </summary>
public sealed class AnyLayoutAnyBaseTests : IDisposable
{
    private const string BaseName = "diffusion_pytorch_model";
    private static readonly BlockNumbers s_block = new("0", "0", "0");

    private readonly TempFolder _folder = new();
    private readonly DisposeScope _scope = NewDisposeScope();

    // Tensors by their published name, and where their rows are in the single file.
    private Dictionary<string, TablePlace> _places = [];

    public static TheoryData<string> Families => [.. NameTables.All.Select(static family => family.Name)];

    public void Dispose()
    {
        _scope.Dispose();
        _folder.Dispose();
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void The_files_of_all_programs_change_a_folder_and_a_single_file_by_the_same_bits(string name)
    {
        manual_seed(61);
        ModelFamily family = NameTables.All.Single(family => family.Name == name);
        (string folder, string file) = Bases(family.Parts.First(static part => part.IsDenoiser));
        string adapter = Adapter();
        Dictionary<string, Tensor> onFolder = Merge(folder, adapter);
        Dictionary<string, Tensor> onFile = Merge(file, adapter);
        Same(onFolder, onFile, "PEFT");
        List<AdapterProgram> written = [];
        foreach (AdapterProgram program in Enum.GetValues<AdapterProgram>().Except([AdapterProgram.Vllm, AdapterProgram.Peft]))
        {
            string path = _folder[$"{program}.safetensors"];
            try
            {
                AdapterConverter.Convert(adapter, path, default, new() { Program = program, BasePath = folder }, out IReadOnlyList<string> warnings);
                Assert.Empty(warnings);
            }
            catch (LoKrException exception) when (exception.ErrorId == ErrorIds.ConversionUnsupported)
            {
                Assert.False(File.Exists(path), $"{program} {exception.Message}");
                continue;
            }

            written.Add(program);
            Assert.DoesNotContain(AdapterValidator.Check(path, new() { Program = program, BasePath = file }).Findings, static finding => finding.Severity == LoKrFindingSeverity.Error);
            foreach (string from in (string[])[folder, file])
            {
                Same(onFolder, Merge(from, path), $"{program} onto {Path.GetFileName(from)}");
            }

            // With the names of the base, and with those that the file alone tells.
            AdapterConverter.Convert(path, _folder["back"], AdapterLayout.Peft, new() { BasePath = folder, Division = ModuleDivision.Split, Force = true }, out _);
            Same(onFolder, Merge(folder, _folder["back"]), $"{program} and back");
            AdapterConverter.Convert(path, _folder["back"], default, new() { Program = AdapterProgram.Peft, Force = true }, out _);
            Same(onFolder, Merge(folder, _folder["back"]), $"{program} and back without the base");
        }

        Assert.Contains(AdapterProgram.ComfyUI, written);
    }

    private (string Folder, string File) Bases(ModelPart model)
    {
        Dictionary<string, Tensor> single = [];
        _places = TableWeights.Add(single, model, model.CheckpointPrefixes[0], s_block);
        SafetensorsWriter.Write(_folder["single.safetensors"], single);
        return (MergeFiles.Base(_folder["folder"], TablePlace.Weights(_places, name => single[name]), baseName: BaseName, config: "{}"), _folder["single.safetensors"]);
    }

    /// <summary>Factors of every published weight; those of one fused weight share w2, so that they are one product too.</summary>
    private string Adapter()
    {
        Dictionary<string, Tensor> factors = [];
        Dictionary<string, Tensor> shared = [];
        foreach ((string name, Tensor weight) in MergeFiles.Read(_folder["folder"], BaseName))
        {
            string tensor = _places[name].Tensor;
            factors.Add(name.Replace(".weight", ".lokr_w1", StringComparison.Ordinal), randn(weight.shape[0] / 4, 2));
            factors.Add(name.Replace(".weight", ".lokr_w2", StringComparison.Ordinal), shared.TryGetValue(tensor, out Tensor? w2) ? w2 : shared[tensor] = randn(4, 4));
        }

        PeftAdapterFolder.Write(_folder["adapter"], new LoKrConfig { R = 8, Alpha = 16, ShapesFromFile = true, TargetModules = ModuleSelector.FromPattern(".*") }, factors);
        return _folder["adapter"];
    }

    private Dictionary<string, Tensor> Merge(string from, string adapter)
    {
        bool isFile = File.Exists(from);
        string to = _folder[isFile ? "out.safetensors" : "out"];
        LoKrMergeResult result = MergeFiles.Run(MergeFiles.Options(from, to, adapter) with { Force = true });
        Assert.Equal(isFile ? _places.Values.Select(static place => place.Tensor).Distinct().Count() : _places.Count, result.ModuleCount);
        if (!isFile)
        {
            return MergeFiles.Read(to, BaseName);
        }

        using SafetensorsReader reader = SafetensorsReader.Open(to);
        return reader.Entries.Keys.ToDictionary(static name => name, name => reader.Read(name), StringComparer.Ordinal);
    }

    /// <summary>Compares a merged folder with another one, or with a merged file.</summary>
    private void Same(Dictionary<string, Tensor> folder, Dictionary<string, Tensor> other, string what)
    {
        bool isFile = other.Keys.All(key => _places.Values.Any(place => place.Tensor == key)) && !other.Keys.All(folder.ContainsKey);
        string[] different = [.. folder.Where(pair =>
        {
            TablePlace place = _places[pair.Key];
            return !TensorAssert.Same(pair.Value, isFile ? place.In(other[place.Tensor]) : other[pair.Key]);
        }).Select(static pair => pair.Key)];
        Assert.True(different.Length == 0, $"{what}: {different.Length} of {folder.Count} differ: {string.Join(", ", different.Take(5))}");
    }
}
