using System.Management.Automation;
using System.Runtime.CompilerServices;
using LoKr.Core.Adapters;
using TorchSharp;

namespace LoKr.PowerShell.Binding;

/// <summary>Lets any <c>torch.nn.Module</c> stand where a <see cref="LoKrModel"/> is wanted; the same module is always the same model.</summary>
[AttributeUsage(AttributeTargets.Property)]
public sealed class LoKrModelTransformationAttribute : ArgumentTransformationAttribute
{
    // Not state of a session: a module made in a script and its wrapper are one object seen two ways, and die together.
    private static readonly ConditionalWeakTable<torch.nn.Module, LoKrModel> s_wrappers = [];

    /// <inheritdoc/>
    public override object? Transform(EngineIntrinsics engineIntrinsics, object inputData) =>
        (inputData is PSObject wrapped ? wrapped.BaseObject : inputData) switch
        {
            LoKrModel model => model,
            torch.nn.Module module => s_wrappers.GetValue(module, static m => new LoKrModel(m)),
            // The binder says what it wanted, or tries another parameter set.
            _ => inputData,
        };
}
