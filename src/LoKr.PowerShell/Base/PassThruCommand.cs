using System.ComponentModel;
using System.Management.Automation;
using LoKr.Core.Model;

namespace LoKr.PowerShell.Base;

/// <summary>
/// Base of the cmdlets that change a model in place, or read it, and can pass it on. They write it where a command follows in the same
/// pipeline, so that a pipeline of them is a sentence, and nothing where they end one, so that a prompt, a function and a script stay quiet.
/// </summary>
[EditorBrowsable(EditorBrowsableState.Never)]
public abstract class PassThruCommand : LoKrCommand
{
    /// <summary>Writes the model even where no command follows in the pipeline: for a variable, or as the result of a function or script block.</summary>
    [Parameter]
    public virtual SwitchParameter PassThru { get; set; }

    /// <summary>A model or pipeline in an error record: the folder it was read from, or its class.</summary>
    private protected static string? NameOf(IAdaptable? model) => model?.SourcePath ?? model?.Name;

    /// <summary>Writes a model for the next command of the pipeline, or because -PassThru asks for it.</summary>
    /// <param name="model">The model or the pipeline.</param>
    protected void PassOn(IAdaptable model)
    {
        if (PassThru || MyInvocation.PipelinePosition < MyInvocation.PipelineLength)
        {
            WriteObject(model);
        }
    }
}
