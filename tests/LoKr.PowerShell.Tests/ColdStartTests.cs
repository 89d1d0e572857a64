using LoKr.Core.Configuration;
using LoKr.PowerShell.Tests.Support;
using Xunit;

namespace LoKr.PowerShell.Tests;

/// <summary>Importing the module, and what needs no tensors, loads nothing native of torch.</summary>
public sealed class ColdStartTests
{
    private const string Native = """
        function Native { @([Diagnostics.Process]::GetCurrentProcess().Modules | ForEach-Object ModuleName | Where-Object { $_ -match 'torch_cpu|LibTorchSharp|c10' }).Count }

        """;

    [Fact]
    public void Import_loads_nothing_native_and_the_first_tensor_does()
    {
        ProcessResult result = ShellProcess.Run("-Command", Native + """
            "commands: $(@(Get-Command -Module LoKr).Count -gt 20)"
            "after import: $(Native)"
            $null = New-LoKrConfig -R 4 -TargetModules query
            "after a configuration: $(Native)"
            $null = [TorchSharp.torch]::zeros(1)
            "after a tensor: $((Native) -gt 0)"
            """);
        Assert.Equal(["commands: True", "after import: 0", "after a configuration: 0", "after a tensor: True"], result.Lines);
    }
}
