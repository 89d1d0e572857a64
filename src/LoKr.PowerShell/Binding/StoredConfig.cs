using System.Collections;
using System.Collections.Specialized;
using System.Globalization;
using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;

namespace LoKr.PowerShell.Binding;

/// <summary>Configurations as JSON, CLIXML and jobs give them back: objects with the properties of a <see cref="LoKrConfig"/>.</summary>
internal static class StoredConfig
{
    /// <summary>Throws for an object that is not a configuration, of which the parameters would silently take a part or nothing.</summary>
    /// <param name="item">The object from the pipeline, or null.</param>
    /// <param name="parameters">The parameters that take properties.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.InvalidArgument"/>.</exception>
    public static void Check(PSObject? item, IReadOnlyDictionary<string, ParameterMetadata> parameters)
    {
        if (item is null)
        {
            return;
        }

        if (item.Properties["peft_type"] is not null)
        {
            throw Invalid("The object is the content of an adapter_config.json, whose keys are not those of a configuration.", "Read such a file with Get-LoKrConfig.");
        }

        if (!item.Properties.Any(property => parameters.Any(parameter => Takes(parameter.Value, property.Name))))
        {
            throw Invalid($"A {item.BaseObject.GetType().Name} has none of the fields of a configuration.", "Give objects with properties such as R, Alpha and TargetModules.");
        }
    }

    private static bool Takes(ParameterMetadata parameter, string property) => parameter.ParameterSets.Values.Any(static set => set.ValueFromPipelineByPropertyName)
        && parameter.Aliases.Prepend(parameter.Name).Contains(property, StringComparer.OrdinalIgnoreCase);

    private static LoKrException Invalid(string summary, string advice) => new(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, summary, advice);
}

/// <summary>Accepts the choice of modules of another configuration for a list of names; one that is a pattern has none.</summary>
[AttributeUsage(AttributeTargets.Property)]
public sealed class ModuleNamesTransformationAttribute : ArgumentTransformationAttribute
{
    /// <inheritdoc/>
    public override object? Transform(EngineIntrinsics engineIntrinsics, object inputData) =>
        inputData is not null && PSObject.AsPSObject(inputData) is { } item && item.Properties[nameof(ModuleSelector.IsAllLinear)] is not null
            ? LanguagePrimitives.ConvertTo<string[]>(item.Properties[nameof(ModuleSelector.Names)].Value)
            : inputData;
}

/// <summary>Accepts values by pattern as JSON and CLIXML have them: a list of keys and values in their order, or an object with a property for each.</summary>
[AttributeUsage(AttributeTargets.Property)]
public sealed class PatternTransformationAttribute : ArgumentTransformationAttribute
{
    /// <inheritdoc/>
    public override object? Transform(EngineIntrinsics engineIntrinsics, object inputData)
    {
        switch (inputData.Unwrap())
        {
            case null or IDictionary:
                return inputData;
            case PSCustomObject:
                return Ordered(PSObject.AsPSObject(inputData).Properties.Select(static property => (property.Name, (object?)property.Value)));
            case IEnumerable entries and not string:
                PSObject[] items = [.. entries.Cast<object>().Select(PSObject.AsPSObject)];
                return items.All(static item => item.Properties["Key"] is not null && item.Properties["Value"] is not null)
                    ? Ordered(items.Select(static item => (Convert.ToString(item.Properties["Key"].Value, CultureInfo.InvariantCulture)!, (object?)item.Properties["Value"].Value)))
                    : inputData;
            default:
                return inputData;
        }
    }

    private static OrderedDictionary Ordered(IEnumerable<(string Key, object? Value)> entries)
    {
        OrderedDictionary result = new(StringComparer.Ordinal);
        foreach ((string key, object? value) in entries)
        {
            result.Add(key, value);
        }

        return result;
    }
}

/// <summary>Accepts the copy of an <see cref="AutoMapping"/> that JSON and CLIXML give back.</summary>
[AttributeUsage(AttributeTargets.Property)]
public sealed class AutoMappingTransformationAttribute : ArgumentTransformationAttribute
{
    /// <inheritdoc/>
    public override object? Transform(EngineIntrinsics engineIntrinsics, object inputData) =>
        inputData.Unwrap() is not null and not AutoMapping
        && PSObject.AsPSObject(inputData) is { } item && item.Properties[nameof(AutoMapping.BaseModelClass)]?.Value is { } name && item.Properties[nameof(AutoMapping.ParentLibrary)]?.Value is { } library
            ? new AutoMapping($"{name}", $"{library}")
            : inputData;
}
