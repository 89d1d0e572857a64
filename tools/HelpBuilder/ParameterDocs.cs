using System.Management.Automation;
using System.Reflection;
using System.Xml.Linq;

namespace HelpBuilder;

/// <summary>Descriptions of parameters from the XML documentation of the assembly, and their defaults.</summary>
internal sealed class ParameterDocs(string xmlFile)
{
    private readonly Dictionary<string, string> _summaries = XDocument.Load(xmlFile).Descendants("member")
        .Where(member => member.Element("summary") is not null)
        .ToDictionary(member => member.Attribute("name")!.Value, member => string.Join(' ', member.Element("summary")!.Value.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries)));

    /// <summary>Parameters of a cmdlet without the common ones, sorted by name.</summary>
    public static IEnumerable<ParameterMetadata> Of(CmdletInfo cmdlet) => cmdlet.Parameters.Values
        .Where(parameter => !Cmdlet.CommonParameters.Contains(parameter.Name))
        .OrderBy(parameter => parameter.Name, StringComparer.Ordinal);

    /// <summary>Those that take whole objects from the pipeline.</summary>
    public static IEnumerable<ParameterMetadata> FromPipeline(CmdletInfo cmdlet) =>
        Of(cmdlet).Where(parameter => parameter.ParameterSets.Values.Any(set => set.ValueFromPipeline));

    /// <summary>The description of a parameter.</summary>
    public string Describe(CmdletInfo cmdlet, string parameter) => parameter switch
    {
        "WhatIf" => "Shows what would happen. Nothing is changed.",
        "Confirm" => "Asks before anything is changed.",
        _ => _summaries[Id(cmdlet.ImplementingType.GetProperty(parameter)!)],
    };

    /// <summary>The default of a parameter: the value that a new instance of its cmdlet has. Empty where there is none, or where the parameter is required.</summary>
    public static string Default(CmdletInfo cmdlet, string parameter)
    {
        if (cmdlet.ImplementingType.GetProperty(parameter) is not { } property || cmdlet.Parameters[parameter].ParameterSets.Values.All(set => set.IsMandatory))
        {
            return "";
        }

        object made = Activator.CreateInstance(cmdlet.ImplementingType)!;
        using IDisposable? held = made as IDisposable;
        return property.GetValue(made) switch
        {
            null => "",
            SwitchParameter => "False",
            long.MaxValue or int.MaxValue => "",
            string[] list => string.Join(", ", list),
            Array => "",
            { } value => Convert.ToString(value, System.Globalization.CultureInfo.InvariantCulture)!,
        };
    }

    private static string Id(PropertyInfo property) => $"P:{property.DeclaringType!.FullName}.{property.Name}";
}
