using System.Management.Automation;
using System.Management.Automation.Runspaces;
using LoKr.Testing;
using Xunit;

namespace LoKr.PowerShell.Tests.Support;

/// <summary>A runspace of the engine with the built module imported from its folder, as a user imports it.</summary>
public sealed class ModuleHost : IDisposable
{
    private readonly Runspace _runspace;

    public ModuleHost()
    {
        InitialSessionState state = InitialSessionState.CreateDefault2();
        state.ThrowOnRunspaceOpenError = true;
        state.ImportPSModule([Manifest]);
        _runspace = RunspaceFactory.CreateRunspace(state);
        _runspace.Open();
    }

    /// <summary>The manifest in the folder that the build of LoKr.PowerShell made.</summary>
    public static string Manifest { get; } = Path.Combine(
        Fixtures.Repository ?? throw new InvalidOperationException("The tests need the repository around them."),
        "artifacts", "bin", "LoKr.PowerShell", Path.GetFileName(Path.TrimEndingDirectorySeparator(AppContext.BaseDirectory)), "LoKr.psd1");

    public Runspace Runspace => _runspace;

    /// <summary>Sets a variable that scripts see.</summary>
    public void Set(string name, object? value) => _runspace.SessionStateProxy.SetVariable(name, value);

    /// <summary>The value of a variable.</summary>
    public object? Get(string name) => _runspace.SessionStateProxy.GetVariable(name) is PSObject wrapped ? wrapped.BaseObject : _runspace.SessionStateProxy.GetVariable(name);

    /// <summary>A pipeline that is not started yet.</summary>
    public System.Management.Automation.PowerShell Create(string script) =>
        System.Management.Automation.PowerShell.Create(_runspace).AddScript(script, useLocalScope: false);

    /// <summary>Runs a script to its end; errors are in the result, a terminating one last.</summary>
    public ScriptResult Run(string script)
    {
        using System.Management.Automation.PowerShell shell = Create(script);
        List<ErrorRecord> thrown = [];
        IReadOnlyList<PSObject> output = [];
        try
        {
            output = [.. shell.Invoke()];
        }
        catch (RuntimeException exception)
        {
            thrown.Add(exception.ErrorRecord);
        }

        return new ScriptResult(
            output,
            [.. shell.Streams.Error, .. thrown],
            [.. shell.Streams.Warning.Select(record => record.Message)],
            [.. shell.Streams.Verbose.Select(record => record.Message)],
            [.. shell.Streams.Progress]);
    }

    /// <summary>Runs a script that has to go well and returns what it wrote.</summary>
    public IReadOnlyList<object> Output(string script)
    {
        ScriptResult result = Run(script);
        Assert.True(result.Errors.Count == 0, string.Join(Environment.NewLine, result.Errors.Select(error => $"{error.FullyQualifiedErrorId}: {error}")));
        return [.. result.Output.Select(item => item?.BaseObject!)];
    }

    /// <summary>Runs a script that has to write exactly one object of a type.</summary>
    public T One<T>(string script) => Assert.IsType<T>(Assert.Single(Output(script)));

    /// <summary>Runs a script that has to fail with one error of an id.</summary>
    public ErrorRecord Error(string id, string script)
    {
        ScriptResult result = Run(script);
        ErrorRecord error = Assert.Single(result.Errors);
        Assert.Equal(id, error.FullyQualifiedErrorId.Split(',')[0]);
        Assert.NotEqual(ErrorCategory.NotSpecified, error.CategoryInfo.Category);
        return error;
    }

    public void Dispose() => _runspace.Dispose();
}
