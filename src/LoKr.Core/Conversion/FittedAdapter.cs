using System.Globalization;
using System.Text.Json;
using LoKr.Core.Configuration;
using LoKr.Core.Layouts;
using LoKr.Core.Layouts.Names;

namespace LoKr.Core.Conversion;

/// <summary>Writes fitted layers as an adapter, with their errors in the header.</summary>
internal static class FittedAdapter
{
    /// <summary>Meaning of a full w2 of a one-dimensional convolution to the readers of a layout.</summary>
    public static Conv1dLayout Conv1dOf(AdapterLayout layout) => AdapterLayouts.HasAlphaTensors(layout) ? Conv1dLayout.Kronecker : Conv1dLayout.Peft;

    /// <summary>Writes the adapter.</summary>
    /// <param name="destination">Full path.</param>
    /// <param name="layout">Layout.</param>
    /// <param name="fits">The layers.</param>
    /// <param name="rest">Everything else: saved modules, norms, what is known about the base model, all names of the base model.</param>
    /// <param name="start">Fields of the configuration that the factors do not determine.</param>
    /// <param name="options">Whether to replace.</param>
    /// <returns>What was written, and warnings.</returns>
    public static (LoKrFitResult Result, IReadOnlyList<string> Warnings) Write(
        string destination, AdapterLayout layout, IReadOnlyList<LayerFit> fits, AdapterContent rest, LoKrConfig start, AdapterWriteOptions options)
    {
        LoKrFitResult result = LoKrFitResult.Of(destination, fits);
        AdapterModule[] modules = [.. fits.Select(static fit => fit.ToModule())];
        AdapterContent content = rest with { Modules = modules };
        Dictionary<AdapterComponent, LoKrConfig> configs = [];
        foreach (IGrouping<AdapterComponent, AdapterModule> part in modules.GroupBy(static module => module.Component))
        {
            configs[part.Key] = AdapterConfigBuilder.Build([.. part], content, ScalingConvention.Peft) with
            {
                BaseModelNameOrPath = start.BaseModelNameOrPath,
                ModulesToSave = start.ModulesToSave,
                TaskType = start.TaskType,
                AutoMapping = start.AutoMapping,
                Revision = start.Revision,
            };
        }

        content = content with
        {
            Configs = configs,
            Metadata = new Dictionary<string, string>(rest.Metadata.Where(static pair => pair.Key != AdapterHeader.FitKey)) { [AdapterHeader.FitKey] = Header(result) },
        };
        return (result, AdapterWriter.Write(destination, layout, content, options));
    }

    private static string Header(LoKrFitResult result) => JsonSerializer.Serialize(new Dictionary<string, object>
    {
        ["error"] = Rounded(result.Error),
        ["layers"] = result.Layers.ToDictionary(static layer => layer.Component is null ? layer.ModuleName : $"{layer.Component}.{layer.ModuleName}", static layer => Rounded(layer.Error)),
    });

    private static double Rounded(double error) => double.Parse(error.ToString("G6", CultureInfo.InvariantCulture), CultureInfo.InvariantCulture);
}
