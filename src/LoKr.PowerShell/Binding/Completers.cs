using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;
using LoKr.Core.Model;
using LoKr.Core.Runtime;
using TorchSharp;

namespace LoKr.PowerShell.Binding;

/// <summary>Candidates and the model of a call, for all completers.</summary>
internal static class Completion
{
    /// <summary>Candidates that begin with a word, quoted where they need it.</summary>
    public static IEnumerable<CompletionResult> Match(IEnumerable<string> candidates, string? word)
    {
        WildcardPattern pattern = WildcardPattern.Get($"{(word ?? "").Trim('\'', '"')}*", WildcardOptions.IgnoreCase);
        foreach (string candidate in candidates.Where(pattern.IsMatch))
        {
            bool plain = candidate.All(c => char.IsLetterOrDigit(c) || c is '_' or '.' or '-' or ':');
            yield return new CompletionResult(
                plain ? candidate : $"'{candidate.Replace("'", "''", StringComparison.Ordinal)}'",
                candidate, CompletionResultType.ParameterValue, candidate);
        }
    }

    /// <summary>The model that a call works on: the value of -Model or -Pipeline, or the variable or property before it in the pipeline ($model, $pipeline.UNet); null without either.</summary>
    public static IAdaptable? BoundModel(CommandAst command, IDictionary bound) => AsModel(bound["Model"]) ?? AsModel(bound["Pipeline"]) ?? NamedModel(command);

    // Only a variable or a property is read, nothing else runs: a cmdlet in between passes on the model it gets, so the name is enough.
    private static IAdaptable? NamedModel(CommandAst command)
    {
        IEnumerable<CommandBaseAst> before = command.Parent is PipelineAst pipeline ? pipeline.PipelineElements.TakeWhile(element => element != command) : [];
        return before.Append(command).Reverse()
            .SelectMany(element => element.FindAll(IsName, searchNestedScriptBlocks: false))
            .Select(name => AsModel(ScriptBlock.Create(name.Extent.Text).InvokeReturnAsIs()))
            .FirstOrDefault(model => model is not null);
    }

    private static bool IsName(Ast ast) => ast is VariableExpressionAst
        || (ast is MemberExpressionAst { Static: false, Expression: VariableExpressionAst, Member: StringConstantExpressionAst } and not InvokeMemberExpressionAst);

    private static IAdaptable? AsModel(object? value) => value.Unwrap() switch
    {
        IAdaptable model => model,
        torch.nn.Module module => new LoKrModelTransformationAttribute().Transform(null!, module) as IAdaptable,
        _ => null,
    };
}

/// <summary>Completes names of adapters of the model that the call works on.</summary>
public sealed class AdapterNameCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        Completion.BoundModel(commandAst, fakeBoundParameters) is { } model
            ? Completion.Match(model.GetAdapterNames(), wordToComplete)
            : [];
}

/// <summary>Completes devices: those of the loaded runtime, or the usual spellings while none is loaded.</summary>
public sealed class DeviceCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        Completion.Match(TorchRuntime.Current is { } runtime ? ["auto", .. runtime.Devices] : ["auto", "cpu", "cuda", "cuda:0"], wordToComplete);
}

/// <summary>Completes names of modules of the model that the call works on.</summary>
public sealed class ModuleNameCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        Completion.BoundModel(commandAst, fakeBoundParameters) is { } model
            ? Completion.Match(model.GetModules().Select(module => module.Name), wordToComplete)
            : [];
}

/// <summary>Completes class names of modules: those of the model that the call works on, or the usual ones.</summary>
public sealed class ModuleTypeCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        Completion.Match(
            Completion.BoundModel(commandAst, fakeBoundParameters)?.GetModules().Select(module => module.ModuleType).Distinct().Order(StringComparer.Ordinal)
                ?? (IEnumerable<string>)["Conv2d", "Embedding", "LayerNorm", "Linear"],
            wordToComplete);
}

/// <summary>Completes target modules: the names that common architectures use, and all-linear.</summary>
public sealed class TargetModuleCompleter : IArgumentCompleter
{
    private static readonly string[] s_common =
    [
        "all-linear", "query", "key", "value", "dense", "q_lin", "k_lin", "v_lin", "out_lin",
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    ];

    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        Completion.Match(s_common, wordToComplete);
}
