using LoKr.Core.Configuration;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Safetensors;

namespace LoKr.Core.Layouts;

/// <summary>An adapter of any layout that is merged into a model on disk or in memory: a safetensors file of any program, or a folder of PEFT or diffusers.</summary>
/// <param name="Path">The file or folder.</param>
/// <param name="Weight">Strength, 1 as trained; modules that were trained whole are not scaled.</param>
public sealed record AdapterMergeSource(string Path, double Weight = 1) : CheckpointMergeSource(Path, Weight)
{
    /// <summary>Overrides for what the file does not say, or says wrongly. Tensors of other kinds of adapters are merged too, as far as they can be.</summary>
    public AdapterReadOptions Read { get; init; } = new();

    /// <inheritdoc/>
    public override CheckpointMergeAdapter Open()
    {
        AdapterFile file = AdapterFile.Open(Path, Read.Layout);
        try
        {
            AdapterReadOptions read = AdapterConverter.Filter(file, Read);
            AdapterReading reading = AdapterReading.Of(file, read with { Foreign = ForeignTensors.Carry });
            IReadOnlyList<OtherModule> others = OtherModule.Of(file, read);
            reading.With(OtherModule.Findings(others, read.Foreign == ForeignTensors.Skip)).ThrowIfInvalid(file, read);
            LowRankConfig? lowRank = file.LowRankOf(AdapterComponent.Model);
            bool isPeft = AdapterLayouts.IsPeft(file.Layout) && file.HasConfig;
            Dictionary<string, string> names = isPeft ? file.TensorNames.ToDictionary(static pair => pair.Value, static pair => pair.Key, StringComparer.Ordinal) : [];
            return new()
            {
                Name = Name,
                Weight = Weight,
                DoraStrength = DoraStrength,
                Config = isPeft ? file.ConfigOf(AdapterComponent.Model) ?? lowRank?.Shared : null,
                Others = lowRank is not null && others.All(static other => other.Kind.IsProduct) ? others : [],
                Tensors = isPeft ? new RenamedTensorSource(file.Tensors, file.WeightsPath, original => names.GetValueOrDefault(original) ?? (WrapperCopies.IsCopy(original, file.Entries.ContainsKey) ? null : original)) : file.Tensors,
                Files = [.. file.ConfigPath is string config ? [config] : Array.Empty<string>(), file.WeightsPath],
                Warnings = [.. file.Warnings],
                MadeFor = AdapterFileConfigs.FindBaseModel(file.Metadata, file.WeightsPath),
                Overrides = Read.ToString(),
                Placement = new AdapterPlacement(reading, read, names),
            };
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }
}
