using LoKr.PowerShell.Hosting;
using Xunit;

namespace LoKr.PowerShell.Tests.Hosting;

/// <summary>Whether a shell ends after its script, by the arguments that pwsh takes.</summary>
public sealed class ShellArgumentsTests
{
    [Theory]
    [InlineData(true, "-File", "a.ps1")]
    [InlineData(true, "a.ps1", "-NoExit")]
    [InlineData(true, "-NoProfile", "-NonInteractive", "-f", "a.ps1")]
    [InlineData(true, "--command", "Get-Date")]
    [InlineData(true, "-c", "Get-Date")]
    [InlineData(true, "-ExecutionPolicy", "Bypass", "-EncodedCommand", "RwBlAHQA")]
    [InlineData(true, "-wd", "/tmp", "-cwa", "Get-Date", "-NoExit")]
    [InlineData(false)]
    [InlineData(false, "-NoProfile")]
    [InlineData(false, "-WorkingDirectory", "/tmp")]
    [InlineData(false, "-NoExit", "-Command", "Get-Date")]
    [InlineData(false, "-noe", "-File", "a.ps1")]
    [InlineData(false, "-Command", "-")]
    [InlineData(false, "-")]
    [InlineData(false, "-s", "-NoLogo", "-NoProfile")]
    public void A_shell_ends_after_a_script_or_a_command(bool ends, params string[] arguments) =>
        Assert.Equal(ends, ShellArguments.EndAfterScript(["pwsh.dll", .. arguments]));
}
