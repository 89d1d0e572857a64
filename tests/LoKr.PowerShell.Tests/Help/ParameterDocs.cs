using System.Management.Automation;
using System.Reflection;
using System.Xml.Linq;

namespace LoKr.PowerShell.Tests.Help;

/// <summary>What the assembly says of its parameters: XML documentation and metadata of the engine.</summary>
internal sealed class ParameterDocs(string xmlFile)
{
    private readonly Dictionary<string, string> _summaries = XDocument.Load(xmlFile).Descendants("member")
        .Where(member => member.Element("summary") is not null)
        .ToDictionary(member => member.Attribute("name")!.Value, member => string.Join(' ', member.Element("summary")!.Value.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries)));

    /// <summary>Parameters of a cmdlet without the common ones, in the order of their names.</summary>
    public static IEnumerable<ParameterMetadata> Of(CmdletInfo cmdlet) => cmdlet.Parameters.Values
        .Where(parameter => !Cmdlet.CommonParameters.Contains(parameter.Name))
        .OrderBy(parameter => parameter.Name, StringComparer.Ordinal);

    /// <summary>The description of a parameter.</summary>
    public string Describe(CmdletInfo cmdlet, string parameter) => parameter switch
    {
        "WhatIf" => "Shows what would happen. Nothing is changed.",
        "Confirm" => "Asks before anything is changed.",
        _ => _summaries[Id(cmdlet.ImplementingType.GetProperty(parameter)!)],
    };

    /// <summary>The value of a parameter that is not given, as its cmdlet is made with; empty where there is none, or where it has to be given.</summary>
    public string Default(CmdletInfo cmdlet, string parameter)
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
