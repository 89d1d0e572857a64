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
/// Every weight of a model's denoiser and of its text encoders, in a small pipeline of diffusers and in a small whole checkpoint: an adapter with the names
/// of diffusers and its file for ComfyUI, which numbers text encoders otherwise, change both by the same bits.
/// </summary>
public sealed class AnyPipelineTests : IDisposable
{
    private static readonly BlockNumbers s_block = new("1", "0", "0");

    private readonly TempFolder _folder = new();
    private readonly DisposeScope _scope = NewDisposeScope();

    // Weights by component and published name, and where their rows are in the checkpoint.
    private readonly Dictionary<string, TablePlace> _places = new(StringComparer.Ordinal);

    public static TheoryData<string, bool> Families
    {
        get
        {
            TheoryData<string, bool> data = [];
            foreach (ModelFamily family in NameTables.All)
            {
                data.Add(family.Name, false);
                data.Add(family.Name, true);
            }

            return data;
        }
    }

    public void Dispose()
    {
        _scope.Dispose();
        _folder.Dispose();
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void An_adapter_and_its_file_for_ComfyUI_change_a_pipeline_and_a_checkpoint_by_the_same_bits(string name, bool isLora)
    {
        manual_seed(71);
        WriteBases(NameTables.All.Single(family => family.Name == name));
        string adapter = WriteAdapter(isLora);
        Dictionary<string, Tensor> expected = MergeIntoFolder(adapter);
        Same(expected, MergeIntoFile(adapter), "names of diffusers");
        string path = _folder["comfy.safetensors"];
        try
        {
            AdapterConverter.Convert(adapter, path, default, new() { Program = AdapterProgram.ComfyUI }, out IReadOnlyList<string> warnings);
            Assert.Empty(warnings);
        }
        catch (LoKrException exception) when (exception.ErrorId == ErrorIds.ConversionUnsupported && isLora)
        {
            // LoRA of q, k and v is not a single LoRA of the fused weight.
            Assert.Contains("has no name for", exception.Message, StringComparison.Ordinal);
            return;
        }

        Same(expected, MergeIntoFolder(path), "ComfyUI");
        Same(expected, MergeIntoFile(path), "ComfyUI");
        Assert.DoesNotContain(AdapterValidator.Check(path, new() { Program = AdapterProgram.ComfyUI, BasePath = _folder["checkpoint.safetensors"] }).Findings, static finding => finding.Severity == LoKrFindingSeverity.Error);
        foreach (string from in (string[])[_folder["pipeline"], _folder["checkpoint.safetensors"]])
        {
            AdapterConverter.Convert(path, _folder["again.safetensors"], AdapterLayout.Comfy, new() { BasePath = from, Force = true }, out _);
            Same(expected, MergeIntoFolder(_folder["again.safetensors"]), $"with the names of {Path.GetFileName(from)}");
        }
    }

    private void WriteBases(ModelFamily family)
    {
        Dictionary<string, Tensor> checkpoint = [];
        Directory.CreateDirectory(_folder["pipeline"]);
        File.WriteAllText(_folder["pipeline", "model_index.json"], "{}");
        foreach (ModelPart part in family.Parts.DistinctBy(static part => part.Component))
        {
            string component = AdapterComponents.ByFolder.First(pair => pair.Value == part.Component).Key;
            string prefix = part.CheckpointPrefixes.FirstOrDefault(static prefix => prefix.Length > 0) ?? "";
            Dictionary<string, TablePlace> places = TableWeights.Add(checkpoint, part, prefix, s_block);
            foreach ((string weight, TablePlace place) in places)
            {
                _places.Add($"{component}.{weight}", place);
            }

            MergeFiles.Base(_folder["pipeline", component], TablePlace.Weights(places, name => checkpoint[name]), baseName: part.IsDenoiser ? "diffusion_pytorch_model" : "model", config: "{}");
        }

        SafetensorsWriter.Write(_folder["checkpoint.safetensors"], checkpoint);
    }

    private string WriteAdapter(bool isLora)
    {
        Dictionary<string, Tensor> tensors = [];
        Dictionary<string, Tensor> shared = [];
        foreach ((string weight, TablePlace place) in _places)
        {
            string module = weight[..^".weight".Length];
            if (isLora)
            {
                (tensors[module + ".lora_A.weight"], tensors[module + ".lora_B.weight"], tensors[module + ".alpha"]) = (randn(2, TableWeights.Columns), randn(place.Count, 2), tensor(4f));
                continue;
            }

            // Rows of one fused weight share w2, so that they are one product too.
            tensors[module + ".lokr_w1"] = randn(place.Count / 4, 2);
            tensors[module + ".lokr_w2"] = shared.TryGetValue(place.Tensor, out Tensor? w2) ? w2 : shared[place.Tensor] = randn(4, 4);
        }

        SafetensorsWriter.Write(_folder["adapter.safetensors"], tensors);
        return _folder["adapter.safetensors"];
    }

    private Dictionary<string, Tensor> MergeIntoFolder(string adapter)
    {
        LoKrMergeResult result = MergeFiles.Run(MergeFiles.Options(_folder["pipeline"], _folder["out"], adapter) with { Force = true });
        Assert.Equal(_places.Count, result.ModuleCount);
        return Directory.GetDirectories(_folder["out"]).SelectMany(static part => MergeFiles.Read(part, File.Exists(Path.Combine(part, "model.safetensors")) ? "model" : "diffusion_pytorch_model")
            .Select(pair => KeyValuePair.Create($"{Path.GetFileName(part)}.{pair.Key}", pair.Value))).ToDictionary(StringComparer.Ordinal);
    }

    /// <summary>Weights of a merged checkpoint under their published names.</summary>
    private Dictionary<string, Tensor> MergeIntoFile(string adapter)
    {
        LoKrMergeResult result = MergeFiles.Run(MergeFiles.Options(_folder["checkpoint.safetensors"], _folder["out.safetensors"], adapter) with { Force = true });
        Assert.Equal(_places.Values.Select(static place => place.Tensor).Distinct().Count(), result.ModuleCount);
        using SafetensorsReader reader = SafetensorsReader.Open(_folder["out.safetensors"]);
        return TablePlace.Weights(_places, name => reader.Read(name));
    }

    private static void Same(Dictionary<string, Tensor> expected, Dictionary<string, Tensor> actual, string what)
    {
        string[] different = [.. expected.Where(pair => !TensorAssert.Same(pair.Value, actual[pair.Key])).Select(static pair => pair.Key)];
        Assert.True(different.Length == 0, $"{what}: {different.Length} of {expected.Count} differ: {string.Join(", ", different.Take(5))}");
    }
}
