using System.Globalization;
using System.Management.Automation;
using System.Text;
using System.Xml.Linq;

namespace HelpBuilder;

/// <summary>Makes MAML, and the generated end of each page, from the pages and the assembly.</summary>
/// <param name="docs">What the parameters are for.</param>
/// <param name="project">The project's address, from the manifest; `Get-Help -Online` opens the pages below it.</param>
internal sealed class HelpWriter(ParameterDocs docs, Uri project)
{
    private static readonly XNamespace s_maml = "http://schemas.microsoft.com/maml/2004/10";
    private static readonly XNamespace s_command = "http://schemas.microsoft.com/maml/dev/command/2004/10";
    private static readonly XNamespace s_dev = "http://schemas.microsoft.com/maml/dev/2004/10";
    private static readonly XNamespace s_msh = "http://msh";

    /// <summary>The file that Get-Help reads.</summary>
    public string Maml(IEnumerable<(HelpPage Page, CmdletInfo Cmdlet)> commands)
    {
        XElement root = new(s_msh + "helpItems", new XAttribute("schema", "maml"), commands.Select(command => Command(command.Page, command.Cmdlet)));
        return $"<?xml version=\"1.0\" encoding=\"utf-8\"?>\n{root.ToString().ReplaceLineEndings("\n")}\n";
    }

    /// <summary>A page with syntax and parameters of the cmdlet at its end.</summary>
    public string Page(string text, CmdletInfo cmdlet)
    {
        int generated = text.IndexOf(HelpPage.Generated, StringComparison.Ordinal);
        return (generated < 0 ? $"{text.TrimEnd()}\n\n" : text[..generated]) + Tail(cmdlet);
    }

    private string Tail(CmdletInfo cmdlet)
    {
        StringBuilder text = new();
        text.Append(HelpPage.Generated).Append("\n\n```text\n");
        foreach (CommandParameterSetInfo set in cmdlet.ParameterSets.OrderByDescending(set => set.IsDefault).ThenBy(set => set.Name, StringComparer.Ordinal))
        {
            text.Append(cmdlet.Name).Append(' ').Append(set.ToString().Replace(" [<CommonParameters>]", "", StringComparison.Ordinal)).Append('\n');
        }

        text.Append("```\n\n## PARAMETERS\n");
        foreach (ParameterMetadata parameter in ParameterDocs.Of(cmdlet))
        {
            string pipeline = Pipeline(parameter.ParameterSets.Values);
            string aliases = parameter.Aliases.Count == 0 ? "" : $"; aliases {string.Join(", ", parameter.Aliases)}";
            string value = ParameterDocs.Default(cmdlet, parameter.Name) is { Length: > 0 } found and not "False" ? $"; default {found}" : "";
            text.Append(CultureInfo.InvariantCulture, $"\n### -{parameter.Name}\n\n{docs.Describe(cmdlet, parameter.Name)}\n\n*{TypeName(parameter.ParameterType)}{value}; pipeline input: {pipeline}{aliases}*\n");
        }

        text.Append("\n## INPUTS\n\n").Append(Inputs(cmdlet)).Append('\n');
        return text.ToString();
    }

    private static string Inputs(CmdletInfo cmdlet)
    {
        string[] values = [.. ParameterDocs.FromPipeline(cmdlet).Select(parameter => $"`{parameter.ParameterType.FullName}` for `-{parameter.Name}`")];
        string[] names = [.. ParameterDocs.Of(cmdlet).Where(parameter => parameter.ParameterSets.Values.Any(set => set.ValueFromPipelineByPropertyName)).Select(parameter => $"`{parameter.Name}`")];
        return (values, names) switch
        {
            ([], []) => "None: the cmdlet takes nothing from the pipeline.",
            (_, []) => $"{string.Join(", ", values)}.",
            ([], _) => $"Objects with the properties {string.Join(", ", names)}.",
            _ => $"{string.Join(", ", values)}; or objects with the properties {string.Join(", ", names)}.",
        };
    }

    private XElement Command(HelpPage page, CmdletInfo cmdlet) => new(s_command + "command",
        new XAttribute(XNamespace.Xmlns + "maml", s_maml), new XAttribute(XNamespace.Xmlns + "command", s_command), new XAttribute(XNamespace.Xmlns + "dev", s_dev),
        new XElement(s_command + "details",
            new XElement(s_command + "name", cmdlet.Name), new XElement(s_command + "verb", cmdlet.Verb), new XElement(s_command + "noun", cmdlet.Noun),
            new XElement(s_maml + "description", Para(page.Synopsis))),
        new XElement(s_maml + "description", page.Description.Select(Para)),
        new XElement(s_command + "syntax", cmdlet.ParameterSets.OrderBy(set => set.Name, StringComparer.Ordinal).Select(set => new XElement(s_command + "syntaxItem",
            new XElement(s_maml + "name", cmdlet.Name),
            set.Parameters.Where(parameter => !Cmdlet.CommonParameters.Contains(parameter.Name))
                .OrderBy(parameter => parameter.Position < 0 ? int.MaxValue : parameter.Position).ThenByDescending(parameter => parameter.IsMandatory)
                .ThenBy(parameter => Cmdlet.OptionalCommonParameters.Contains(parameter.Name)).ThenBy(parameter => parameter.Name, StringComparer.Ordinal)
                .Select(parameter => Parameter(cmdlet, parameter.Name, parameter.ParameterType, parameter.IsMandatory, parameter.Position, Pipeline(parameter.ValueFromPipeline, parameter.ValueFromPipelineByPropertyName), parameter.Aliases))))),
        new XElement(s_command + "parameters", ParameterDocs.Of(cmdlet).Select(parameter => Parameter(cmdlet, parameter.Name, parameter.ParameterType,
            parameter.ParameterSets.Values.Any(set => set.IsMandatory), parameter.ParameterSets.Values.Max(set => set.Position), Pipeline(parameter.ParameterSets.Values), parameter.Aliases))),
        new XElement(s_command + "inputTypes", InputTypes(cmdlet)),
        new XElement(s_command + "returnValues", cmdlet.OutputType.Select((type, index) => new XElement(s_command + "returnValue",
            new XElement(s_dev + "type", new XElement(s_maml + "name", type.Name)),
            // What the page says of all of them stands below the first.
            new XElement(s_maml + "description", index == 0 ? Para(page.Outputs) : null)))),
        new XElement(s_maml + "alertSet", page.Notes.Select(note => new XElement(s_maml + "alert", Para(note)))),
        new XElement(s_command + "examples", page.Examples.Select((example, index) => new XElement(s_command + "example",
            new XElement(s_maml + "title", $"Example {index + 1}: {example.Title}"),
            new XElement(s_dev + "code", example.Code),
            // The empty lines keep the next title apart.
            new XElement(s_dev + "remarks", example.Remarks.Length == 0 ? Para("") : new[] { Para(example.Remarks), Para(""), Para("") })))),
        // Get-Help -Online opens the first address.
        new XElement(s_command + "relatedLinks", Link("Online version:", $"{project.ToString().TrimEnd('/')}/blob/main/docs/en-US/{cmdlet.Name}.md"), page.Links.Select(link => Link(link, ""))));

    private static XElement Link(string text, string address) =>
        new(s_maml + "navigationLink", new XElement(s_maml + "linkText", text), new XElement(s_maml + "uri", address));

    private XElement[] InputTypes(CmdletInfo cmdlet)
    {
        XElement[] types = [.. ParameterDocs.FromPipeline(cmdlet).Select(parameter => Input(parameter.ParameterType.FullName!, $"-{parameter.Name}: {docs.Describe(cmdlet, parameter.Name)}"))];
        return types.Length > 0 ? types : [Input("None", Inputs(cmdlet).Replace("`", "", StringComparison.Ordinal))];

        static XElement Input(string type, string description) => new(s_command + "inputType",
            new XElement(s_dev + "type", new XElement(s_maml + "name", type)), new XElement(s_maml + "description", Para(description)));
    }

    private XElement Parameter(CmdletInfo cmdlet, string name, Type type, bool mandatory, int position, string pipeline, IEnumerable<string> aliases)
    {
        XElement parameter = new(s_command + "parameter",
            new XAttribute("required", mandatory ? "true" : "false"),
            new XAttribute("variableLength", type.IsArray ? "true" : "false"),
            new XAttribute("globbing", cmdlet.ImplementingType.GetProperty(name)?.IsDefined(typeof(SupportsWildcardsAttribute), true) == true ? "true" : "false"),
            new XAttribute("pipelineInput", pipeline),
            new XAttribute("position", position < 0 ? "named" : position.ToString(CultureInfo.InvariantCulture)),
            new XAttribute("aliases", aliases.Any() ? string.Join(", ", aliases) : "none"),
            new XElement(s_maml + "name", name),
            new XElement(s_maml + "description", Para(docs.Describe(cmdlet, name))));
        if (type != typeof(SwitchParameter))
        {
            parameter.Add(new XElement(s_command + "parameterValue", new XAttribute("required", "true"), new XAttribute("variableLength", type.IsArray ? "true" : "false"), TypeName(type)));
        }

        parameter.Add(new XElement(s_dev + "type", new XElement(s_maml + "name", TypeName(type)), new XElement(s_maml + "uri")));
        parameter.Add(new XElement(s_dev + "defaultValue", ParameterDocs.Default(cmdlet, name)));
        return parameter;
    }

    private static XElement Para(string text) => new(s_maml + "para", text);

    private static string TypeName(Type type) =>
        Nullable.GetUnderlyingType(type) is { } inner ? TypeName(inner) : type.IsArray ? $"{TypeName(type.GetElementType()!)}[]" : type.Name;

    private static string Pipeline(IEnumerable<ParameterSetMetadata> sets) =>
        Pipeline(sets.Any(set => set.ValueFromPipeline), sets.Any(set => set.ValueFromPipelineByPropertyName));

    private static string Pipeline(bool byValue, bool byName) => (byValue, byName) switch
    {
        (true, true) => "true (ByValue, ByPropertyName)",
        (true, false) => "true (ByValue)",
        (false, true) => "true (ByPropertyName)",
        _ => "false",
    };
}
