using System.Text.Json;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layouts;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Safetensors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Layouts;

/// <summary>Files for a program hold names, scales and forms that it reads, and the same changes of the same weights.</summary>
public sealed class ProgramWriterTests
{
    public static TheoryData<string> Checkpoints => Fixtures.Cases("checkpoints", static folder => Directory.GetFiles(folder, "adapter-*.safetensors").Length > 0 && !Path.GetFileName(folder).StartsWith("fp8", StringComparison.Ordinal));

    [Theory]
    [MemberData(nameof(Checkpoints))]
    public void What_is_written_for_a_program_is_read_by_it_with_the_same_changes(string model)
    {
        using TempFolder folder = new();
        int written = 0;
        foreach (string source in Directory.GetFiles(Fixtures.Require("checkpoints", model), "adapter-*.safetensors").Where(IsLoKr))
        {
            Dictionary<string, Tensor> expected;
            using DisposeScope scope = NewDisposeScope();
            expected = Deltas(source);
            foreach (AdapterProgram program in Enum.GetValues<AdapterProgram>().Where(static program => program is not (AdapterProgram.Peft or AdapterProgram.Vllm)))
            {
                string destination = folder[$"{Path.GetFileNameWithoutExtension(source)}-{program}.safetensors"];
                try
                {
                    AdapterConverter.Convert(source, destination, default, new() { Program = program }, out _);
                }
                catch (LoKrException exception) when (exception.ErrorId == ErrorIds.ConversionUnsupported)
                {
                    Assert.False(File.Exists(destination));
                    continue;
                }

                written++;
                LoKrAdapterCheck check = AdapterValidator.Check(destination, new() { Program = program });
                Assert.True(check.IsValid, $"{Path.GetFileName(destination)}: {string.Join(' ', check.Findings)}");
                using (SafetensorsReader reader = SafetensorsReader.Open(destination))
                {
                    Assert.Equal(program != AdapterProgram.Diffusers, reader.Entries.Keys.Any(static name => name.EndsWith(".alpha", StringComparison.Ordinal)));
                    Assert.DoesNotContain(reader.Entries.Keys, static name => name.EndsWith("lokr_t2", StringComparison.Ordinal));
                }

                Dictionary<string, Tensor> actual = Deltas(destination);
                Assert.Equal(expected.Keys.ToHashSet(), [.. actual.Keys]);
                foreach ((string place, Tensor delta) in expected)
                {
                    TensorAssert.Close(delta, actual[place], TensorAssert.Layer, $"{program} {place}");
                }
            }
        }

        Assert.True(written > 0);
    }

    [Fact]
    public void A_core_is_multiplied_into_a_flat_factor_for_programs_that_drop_it()
    {
        using TempFolder folder = new();
        string source = Fixtures.Require("formats", "lycoris-conv-tucker", "network.safetensors");
        LoKrAdapterInfo before = AdapterInspector.Inspect(source);
        Assert.Contains("lokr_t2", before.TensorKinds);
        LoKrAdapterCheck check = AdapterValidator.Check(source, new() { Program = AdapterProgram.ComfyUI });
        Assert.Contains(check.Findings, static finding => finding.ErrorId == ErrorIds.ProgramFactorsUnread);
        AdapterConverter.Convert(source, folder["a.safetensors"], default, new() { Program = AdapterProgram.ComfyUI }, out _);
        using DisposeScope scope = NewDisposeScope();
        Dictionary<string, Tensor> expected = Deltas(source);
        Dictionary<string, Tensor> actual = Deltas(folder["a.safetensors"]);
        Assert.Equal(expected.Count, actual.Count);
        Assert.All(expected, pair => TensorAssert.Close(pair.Value, actual[pair.Key], TensorAssert.Layer, pair.Key));
        Assert.True(AdapterValidator.Check(folder["a.safetensors"], new() { Program = AdapterProgram.ComfyUI }).IsValid);
    }

    [Theory]
    [InlineData("flux1", "diffusers", AdapterProgram.Kohya, "AiToolkit")]
    [InlineData("flux1", "bfl", AdapterProgram.Diffusers, "ComfyUI")]
    [InlineData("wan21", "original", AdapterProgram.Kohya, "Musubi")]
    [InlineData("z-image", "comfy", AdapterProgram.Musubi, "ComfyUI")]
    public void An_error_says_what_would_work(string model, string adapter, AdapterProgram program, string instead)
    {
        using TempFolder folder = new();
        string source = Fixtures.Require("checkpoints", model, $"adapter-{adapter}.safetensors");
        LoKrException exception = Assert.Throws<LoKrException>(() => AdapterConverter.Convert(source, folder["a.safetensors"], default, new() { Program = program }, out _));
        Assert.Equal(ErrorIds.ConversionUnsupported, exception.ErrorId);
        Assert.Contains(instead, exception.Advice, StringComparison.Ordinal);
        AdapterConverter.Convert(source, folder["a.safetensors"], default, new() { Program = program, Force = true }, out IReadOnlyList<string> warnings);
        Assert.Contains(warnings, static warning => warning.Any(char.IsAsciiDigit));
        Assert.True(File.Exists(folder["a.safetensors"]));
    }

    [Fact]
    public void Diffusers_loads_what_the_check_says()
    {
        using JsonDocument loads = JsonDocument.Parse(File.ReadAllText(Fixtures.Require("names", "diffusers-loads", "loads.json")));
        List<string> wrong = [];
        foreach (JsonElement row in loads.RootElement.EnumerateObject().First(static property => property.Value.ValueKind == JsonValueKind.Array).Value.EnumerateArray())
        {
            string path = Fixtures.Require("names", "diffusers-loads", row.GetProperty("model").GetString()!, row.GetProperty("case").GetString()! + ".safetensors");
            LoKrAdapterCheck check = AdapterValidator.Check(path, new() { Program = AdapterProgram.Diffusers });
            if (check.IsValid != row.GetProperty("loads").GetBoolean())
            {
                wrong.Add($"{row.GetProperty("model")} {row.GetProperty("case")}: {string.Join(' ', check.Findings)}");
            }
        }

        Assert.Empty(wrong);
    }

    [Theory]
    [InlineData("flux1", "nested", ErrorIds.ProgramNameUnread)]
    [InlineData("flux1", "compiled", ErrorIds.ProgramNameUnread)]
    [InlineData("z-image", "musubi", ErrorIds.ProgramNameUnread)]
    [InlineData("ace-step", "conv1d-full", ErrorIds.ProgramFactorsUnread)]
    [InlineData("wan21", "conv3d-full", ErrorIds.ProgramFactorsUnread)]
    [InlineData("flux1", "dora", ErrorIds.ProgramDoraDiffers)]
    [InlineData("sdxl", "kohya-ldm", ErrorIds.ProgramFactorsUnread)]
    public void What_ComfyUI_does_otherwise_is_found(string model, string adapter, string id) => Assert.Contains(
        AdapterValidator.Check(Fixtures.Require("checkpoints", model, $"adapter-{adapter}.safetensors"), new() { Program = AdapterProgram.ComfyUI }).Findings, finding => finding.ErrorId == id);

    [Theory]
    [InlineData("flux1", "bfl")]
    [InlineData("flux1", "diffusers")]
    [InlineData("qwen-image", "bare")]
    [InlineData("sd15", "kohya")]
    [InlineData("sdxl", "kohya")]
    [InlineData("z-image", "aitoolkit")]
    public void What_ComfyUI_reads_whole_has_no_finding(string model, string adapter) => Assert.DoesNotContain(
        AdapterValidator.Check(Fixtures.Require("checkpoints", model, $"adapter-{adapter}.safetensors"), new() { Program = AdapterProgram.ComfyUI }).Findings,
        finding => finding.ErrorId is ErrorIds.ProgramNameUnread or ErrorIds.ProgramScaleDiffers or ErrorIds.ProgramModelUnknown);

    private static bool IsLoKr(string path)
    {
        using AdapterFile file = AdapterFile.Open(path);
        AdapterReading reading = AdapterReading.Of(file, new());
        return reading.Modules.Count == file.Modules.Count && !reading.Findings.Any(static finding => finding.Severity == LoKrFindingSeverity.Error);
    }

    /// <summary>The changes of a file by weight, as matrices with the kernel among the columns.</summary>
    private static Dictionary<string, Tensor> Deltas(string path)
    {
        using AdapterFile file = AdapterFile.Open(path);
        NameTranslator translator = new(file.Model!.Candidates[0]);
        AdapterContent content = AdapterContentReader.Read(file, new(), null);
        return file.Modules.Zip(content.Modules).Select(pair =>
        {
            NameMatch match = translator.Find(AdapterKey.Split(pair.First.Tensors.Values.First().Name).Module)[0];
            KroneckerFactors factors = new(pair.Second.Factors.Where(static factor => factor.Key != FactorNames.DoraScale).ToDictionary(StringComparer.Ordinal), pair.Second.Kernel ?? []);
            Tensor w2 = factors.W2();
            Tensor delta = kron(factors.W1().to(float64).contiguous(), w2.reshape(w2.shape[0], -1).to(float64).contiguous()) * pair.Second.Scale.Factor;

            // Rows in the order of single files.
            bool swaps = match is { IsPublished: true, Place.Weight.IsSwapped: true } && delta.shape[0] == 2 * delta.shape[1];
            return (Name: match.Place.Published!, Delta: swaps ? cat([.. delta.chunk(2).Reverse()]) : delta);
        }).ToDictionary(static pair => pair.Name, static pair => pair.Delta);
    }
}
