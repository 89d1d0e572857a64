using System.Reflection;
using LoKr.Core.Configuration;
using LoKr.Core.Model;
using LoKr.PowerShell.Tests.Support;
using Xunit;

namespace LoKr.PowerShell.Tests;

/// <summary>What scripts name loads in the default context; every other dependency in one of its own, whatever else is loaded.</summary>
public sealed class IsolationTests
{
    [Fact]
    public void Type_literals_of_torch_and_core_resolve_after_import()
    {
        ProcessResult result = ShellProcess.Run("-Command", """
            foreach ($type in [TorchSharp.torch], [LoKr.Core.Configuration.LoKrConfig], [LoKr.Models.Loading.ModelLoader], [LoKr.PowerShell.Commands.GetLoKrConfigCommand]) {
                "$($type.Name) $([Runtime.Loader.AssemblyLoadContext]::GetLoadContext($type.Assembly).Name)"
            }
            """);
        Assert.Equal(["torch Default", "LoKrConfig Default", "ModelLoader Default", "GetLoKrConfigCommand Default"], result.Lines);
    }

    [Fact]
    public void Dependencies_load_in_a_context_of_their_own_and_answer_nobody_else()
    {
        ProcessResult result = ShellProcess.Run("-Command", """
            $null = [TorchSharp.torch].Assembly.GetTypes()
            $null = [LoKr.Models.Loading.ModelLoader].Assembly.GetTypes()
            $own = [Runtime.Loader.AssemblyLoadContext]::All | Where-Object Name -eq 'LoKr dependencies'
            'own: ' + (($own.Assemblies | ForEach-Object { $_.GetName().Name }) -join ' ')
            'default: ' + (([Runtime.Loader.AssemblyLoadContext]::Default.Assemblies | ForEach-Object { $_.GetName().Name } | Where-Object { $_ -match 'Protobuf|SharpZipLib|Skia|Tokenizers|CsvHelper' }) -join ' ')
            try { [Reflection.Assembly]::Load('Google.Protobuf'); 'answered' } catch { 'not answered' }
            """);
        Assert.Contains("Google.Protobuf", result.Lines[0], StringComparison.Ordinal);
        Assert.Contains("Microsoft.ML.Tokenizers", result.Lines[0], StringComparison.Ordinal);
        Assert.Equal("default:", result.Lines[1]);
        Assert.Equal("not answered", result.Lines[2]);
    }

    [Fact]
    public void The_picture_library_loads_its_native_part_in_the_same_context()
    {
        ProcessResult result = ShellProcess.Run("-Command", """
            $path = [System.IO.Path]::GetTempFileName() + '.png'
            [LoKr.Models.Diffusion.ImageFile]::WritePng($path, [TorchSharp.torch]::zeros(4, 6, 3, [TorchSharp.torch+ScalarType]::Byte))
            "$([LoKr.Models.Diffusion.ImageFile]::ReadSize($path))"
            [System.IO.File]::Delete($path)
            [Runtime.Loader.AssemblyLoadContext]::All | Where-Object { @($_.Assemblies | ForEach-Object { $_.GetName().Name }) -contains 'SkiaSharp' } | ForEach-Object Name
            """);
        Assert.Equal(["(6, 4)", "LoKr dependencies"], result.Lines);
        Assert.Empty(result.Error);
    }

    [Fact]
    public void The_module_folder_holds_managed_code_only_and_dependencies_apart()
    {
        string folder = ShellProcess.ModuleFolder;
        Assert.Equal(
            ["LoKr.Core.dll", "LoKr.Models.dll", "LoKr.PowerShell.dll", "TorchSharp.dll"],
            Directory.EnumerateFiles(folder, "*.dll").Select(file => Path.GetFileName(file)).Order(StringComparer.Ordinal));
        Assert.All(Directory.EnumerateFiles(Path.Combine(folder, "dependencies"), "*.dll"), file => AssemblyName.GetAssemblyName(file));
        Assert.DoesNotContain(Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories),
            file => Path.GetExtension(file) is ".so" or ".dylib" || Path.GetFileName(file).Contains("torch_cpu", StringComparison.Ordinal));
    }

    [Fact]
    public void The_first_torch_call_of_a_script_loads_the_runtime_without_copies_or_noise()
    {
        ProcessResult result = ShellProcess.Run("-Command", """
            $layer = [TorchSharp.torch+nn]::Linear(3, 4)
            [LoKr.Core.Runtime.TorchRuntime]::Current.IsLoaded
            ($layer | Add-LoKrAdapter -Config (New-LoKrConfig -R 1 -TargetModules all-linear)).Adapters.Count
            """);
        Assert.Equal(["True", "1"], result.Lines);
        Assert.Empty(result.Error);
        Assert.DoesNotContain(Directory.EnumerateDirectories(ShellProcess.ModuleFolder), folder => Path.GetFileName(folder) is "cpu" or "cuda-12.8");
    }

    [Fact]
    public void A_missing_runtime_is_a_clear_error_and_starts_no_search_of_torchsharp()
    {
        ProcessResult result = ShellProcess.RunWithVariable("LOKR_RUNTIME", Path.Combine(Path.GetTempPath(), "no-such-runtime"), "-Command", """
            try { $null = [TorchSharp.torch+nn]::Linear(3, 4) } catch { $_.Exception.InnerException.ErrorId }
            Test-LoKrRuntime
            Get-LoKrRuntime
            """);
        Assert.Equal(["LoKr.RuntimeNotFound", "False"], result.Lines);
        Assert.Contains("LOKR_RUNTIME", result.Error, StringComparison.Ordinal);
        Assert.Equal(1, result.ExitCode);
    }

    [Fact]
    public void The_module_can_be_removed_and_imported_again()
    {
        ProcessResult result = ShellProcess.Run("-Command", """
            $config = New-LoKrConfig -TargetModules all-linear
            Remove-Module LoKr
            Import-Module LoKr
            ([TorchSharp.torch+nn]::Linear(3, 4) | Add-LoKrAdapter -Config $config).Adapters.Count
            """);
        Assert.Equal(["1"], result.Lines);
        Assert.Empty(result.Error);
    }
}
