using System.Runtime.InteropServices;
using LoKr.Core.Configuration;
using LoKr.Core.Model;
using LoKr.PowerShell.Tests.Support;
using LoKr.Testing;
using Xunit;

namespace LoKr.PowerShell.Tests;

/// <summary>LoKr.Shell as scripts and services see it: arguments, exit status, streams, signals.</summary>
public sealed class ShellTests : IDisposable
{
    private readonly TempFolder _folder = new();

    [Fact]
    public void Script_arguments_bind_by_name_position_and_switch()
    {
        string script = Script("""
            param([string] $ModelPath, [int] $Epochs = 1, [switch] $Fast, [string[]] $Rest, [switch] $Off)
            "$ModelPath|$Epochs|$Fast|$($Rest -join ',')|$Off|$($PSScriptRoot -eq [IO.Path]::GetDirectoryName($PSCommandPath))"
            """);
        ProcessResult result = ShellProcess.Run(script, "-ModelPath", "a b", "-Epochs:3", "-Fast", "x", "-Off:$false");
        Assert.Equal(["a b|3|True|x|False|True"], result.Lines);
        Assert.Equal(0, result.ExitCode);
    }

    [Theory]
    [InlineData("'fine'", 0)]
    [InlineData("exit 7", 7)]
    [InlineData("exit", 0)]
    [InlineData("throw 'no'", 1)]
    [InlineData("$ErrorActionPreference = 'Stop'; Import-LoKrModel ./nowhere; 'not here'", 1)]
    [InlineData("try { throw 'no' } catch { exit 3 }", 3)]
    [InlineData("if (", 1)]
    public void Scripts_end_with_their_status(string text, int status)
    {
        ProcessResult result = ShellProcess.Run(Script(text));
        Assert.Equal(status, result.ExitCode);
        Assert.DoesNotContain("not here", result.Output, StringComparison.Ordinal);
        Assert.Equal(status == 1, result.Error.Length > 0);
    }

    [Theory]
    [InlineData("(New-LoKrConfig -R 4).R", 0, "4")]
    [InlineData("New-LoKrConfig -R 0", 1, "")]
    [InlineData("exit 5", 5, "")]
    public void Commands_end_with_a_status_that_tells_failure(string command, int status, string output)
    {
        ProcessResult result = ShellProcess.Run("-Command", command);
        Assert.Equal(status, result.ExitCode);
        Assert.Equal(output, result.Output.Trim());
    }

    [Fact]
    public void An_error_shows_command_message_and_line()
    {
        ProcessResult result = ShellProcess.Run(Script("\nNew-LoKrConfig -R 0"));
        Assert.Contains("New-LoKrConfig", result.Error, StringComparison.Ordinal);
        Assert.Contains("script.ps1:2", result.Error, StringComparison.Ordinal);
        Assert.Contains("R is 0", result.Error, StringComparison.Ordinal);
        Assert.Empty(result.Output);
    }

    [Fact]
    public void A_redirected_output_is_plain_text_in_the_views_of_the_module()
    {
        ProcessResult result = ShellProcess.Run("-Command", "New-LoKrConfig -R 4 -TargetModules query, value");
        Assert.DoesNotContain('\u001b', result.Output);
        Assert.Contains("TargetModules", result.Output, StringComparison.Ordinal);
        Assert.Contains("query, value", result.Output, StringComparison.Ordinal);
        Assert.DoesNotContain("UseEffectiveConv2d", result.Output, StringComparison.Ordinal);
    }

    [Fact]
    public void Standard_input_is_read_until_it_ends_or_exits()
    {
        Assert.Equal(["3", "6"], ShellProcess.RunWithInput("3\nforeach ($x in 6) { $x }\n", "-Command", "-").Lines);
        Assert.Equal(9, ShellProcess.RunWithInput("exit 9\n'not here'\n", "-Command", "-").ExitCode);
    }

    [Fact]
    public void Wrong_options_are_told_from_errors_of_scripts()
    {
        Assert.Equal(64, ShellProcess.Run("-Nonsense").ExitCode);
        Assert.Equal(64, ShellProcess.Run(_folder["nothing.ps1"]).ExitCode);
        Assert.Equal(0, ShellProcess.Run("-Help").ExitCode);
    }

    [Fact]
    public void Ctrl_c_stops_the_pipeline_and_runs_finally()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "Signals are sent by kill.");
        ProcessResult result = ShellProcess.Signal(PosixSignal.SIGINT, "ready",
            Script("try { 'ready'; while ($true) { [Threading.Thread]::Sleep(20) } } finally { [Console]::Out.WriteLine('finally') }"));
        Assert.Contains("finally", result.Output, StringComparison.Ordinal);
    }

    [Fact]
    public void Sigterm_in_training_stops_at_a_step_and_the_script_chooses_the_status()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "Signals are sent by kill.");
        string model = TinyModel.WriteBert(_folder["bert"]);
        string data = TinyModel.WriteTickets(_folder["train.jsonl"], 48);
        ProcessResult result = ShellProcess.Signal(PosixSignal.SIGTERM, "step 3", Script($$"""
            $ErrorActionPreference = 'Stop'
            $model = Import-LoKrModel '{{model}}' -Label network, access, billing
            try {
                New-LoKrConfig -R 2 -TargetModules query | Add-LoKrAdapter $model |
                    Start-LoKrTraining -Data '{{data}}' -MaxSteps 1000000 -ReportStep | ForEach-Object { if ($_.Step -eq 3) { 'step 3' } }
            } catch {
                $_.FullyQualifiedErrorId
                $model.LastTraining.StopReason
                exit 143
            }
            """));
        Assert.Equal(143, result.ExitCode);
        Assert.Contains("LoKr.TrainingInterrupted", result.Output, StringComparison.Ordinal);
        Assert.Contains("Signal", result.Output, StringComparison.Ordinal);
    }

    public void Dispose() => _folder.Dispose();

    private string Script(string text)
    {
        File.WriteAllText(_folder["script.ps1"], text);
        return _folder["script.ps1"];
    }
}
