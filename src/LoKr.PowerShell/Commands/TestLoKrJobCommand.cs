using System.Management.Automation;
using LoKr.Core.Errors;
using LoKr.Core.Runs;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Checks job files, and lists the problems of each with line and key.</summary>
[Cmdlet(VerbsDiagnostic.Test, "LoKrJob", DefaultParameterSetName = PathSet)]
[OutputType(typeof(LoKrJobCheck), typeof(bool))]
public sealed class TestLoKrJobCommand : PathCommand
{
    /// <summary>Writes $true or $false for each file instead of the problems.</summary>
    [Parameter]
    public SwitchParameter Quiet { get; set; }

    /// <inheritdoc/>
    protected override void Process() => ForEachPath(path =>
    {
        LoKrJobCheck check = Check(path);
        WriteObject(Quiet ? check.IsValid : check);
    });

    private static LoKrJobCheck Check(string path)
    {
        try
        {
            JobDocument document = JobScript.Read(path);
            IReadOnlyList<JobProblem> problems = JobFile.Check(document, out LoKrJob? job);
            return new() { Path = path, Name = job?.Name ?? JobFile.DefaultName(path), Problems = [.. problems, .. job is null ? [] : JobScript.CheckCode(document, job)] };
        }
        catch (LoKrException exception) when (exception.Target is JobProblem)
        {
            // A file that cannot be parsed has one problem.
            return new() { Path = path, Name = JobFile.DefaultName(path), Problems = [(JobProblem)exception.Target] };
        }
    }
}
