using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Models.Loading;
using TorchSharp;

namespace LoKr.PowerShell.Binding;

/// <summary>
/// Content of the line that is being completed, beside its command: the model in memory that it works on, and the folders and files that it
/// names. Only variables and properties are read; nothing else of the line runs.
/// </summary>
internal static class LineModel
{
    /// <summary>
    /// The model in memory that a call works on: the value of -Model or -Pipeline, or the nearest variable or property before it in the
    /// pipeline ($model, $pipeline.UNet), after it, or elsewhere in the line; null without any.
    /// </summary>
    public static IAdaptable? Find(CommandAst command, IDictionary bound) =>
        AsModel(bound["Model"]) ?? AsModel(bound["Pipeline"]) ?? Parts(command)
            .SelectMany(part => part.FindAll(IsName, searchNestedScriptBlocks: false))
            .Select(name => AsModel(ScriptBlock.Create(name.Extent.Text).InvokeReturnAsIs()))
            .FirstOrDefault(model => model is not null);

    /// <summary>Names of the modules of the model that a call works on, or of the folder of one that the line names; none without either.</summary>
    /// <param name="command">The command.</param>
    /// <param name="bound">Values of its parameters.</param>
    /// <param name="adaptable">Only modules that can take an adapter.</param>
    public static IReadOnlyList<string> ModuleNames(CommandAst command, IDictionary bound, bool adaptable)
    {
        if (Find(command, bound) is IAdaptable model)
        {
            return model.GetModuleNames(adaptable);
        }

        foreach (string folder in Paths(command).Where(Directory.Exists))
        {
            if (ReadNames(folder) is { Count: > 0 } names)
            {
                return [.. names.Where(module => module.IsAdaptable || !adaptable).Select(module => module.Name)];
            }
        }

        return [];
    }

    /// <summary>Full paths of what the words of the line name in the file system, the nearest first.</summary>
    public static IEnumerable<string> Paths(CommandAst command) => Parts(command)
        .SelectMany(part => part.FindAll(ast => ast is StringConstantExpressionAst or ExpandableStringExpressionAst || IsName(ast), searchNestedScriptBlocks: false))
        .Select(word => word is StringConstantExpressionAst constant ? constant.Value : PathIn(word))
        .Where(word => word.Length > 0)
        .Distinct(StringComparer.Ordinal)
        .Select(SessionPaths.Find)
        .OfType<string>();

    // A cmdlet in between passes on the model it gets, so the name is enough. The command itself comes before what follows it.
    private static IEnumerable<Ast> Parts(CommandAst command)
    {
        IReadOnlyList<CommandBaseAst> elements = command.Parent is PipelineAst pipeline ? pipeline.PipelineElements : [command];
        foreach (CommandBaseAst element in elements.TakeWhile(element => element != command).Append(command).Reverse())
        {
            yield return element;
        }

        foreach (CommandBaseAst element in elements.SkipWhile(element => element != command).Skip(1))
        {
            yield return element;
        }

        Ast root = command;
        while (root.Parent is not null)
        {
            root = root.Parent;
        }

        yield return root;
    }

    private static bool IsName(Ast ast) => ast is VariableExpressionAst { Parent: not AssignmentStatementAst }
        || (ast is MemberExpressionAst { Static: false, Expression: VariableExpressionAst, Member: StringConstantExpressionAst } and not InvokeMemberExpressionAst);

    private static string PathIn(Ast word) => ScriptBlock.Create(word.Extent.Text).InvokeReturnAsIs().Unwrap() switch
    {
        string text => text,
        FileSystemInfo item => item.FullName,
        _ => "",
    };

    private static IAdaptable? AsModel(object? value) => value.Unwrap() switch
    {
        IAdaptable model => model,
        torch.nn.Module module => new LoKrModelTransformationAttribute().Transform(null!, module) as IAdaptable,
        _ => null,
    };

    // The folder may be damaged or half downloaded: then it has no names to offer, and the command that reads it will say why.
    private static IReadOnlyList<ModuleName> ReadNames(string folder)
    {
        try
        {
            return ModelShapes.ReadNames(folder);
        }
        catch (LoKrException)
        {
            return [];
        }
    }
}
