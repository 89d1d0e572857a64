using System.Management.Automation;
using LoKr.Core.Errors;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Errors;
using LoKr.PowerShell.Tests.Support;
using LoKr.Testing;
using Xunit;

namespace LoKr.PowerShell.Tests;

/// <summary>The manifest says what the assembly holds, and every cmdlet keeps the rules of the module.</summary>
public sealed class ManifestTests : ModuleTest
{
    private static readonly string[] s_changing = ["Set", "Enable", "Disable", "Remove", "Add", "Export", "Merge", "Start", "Undo", "Convert"];

    public static TheoryData<string> Cmdlets() => [.. Types().Select(Name)];

    [Fact]
    public void Exports_are_exactly_the_cmdlets_of_the_assembly() => Assert.Equal(
        Types().Select(Name).Order(StringComparer.Ordinal),
        Host.Output("(Get-Command -Module LoKr).Name").Cast<string>().Order(StringComparer.Ordinal));

    [Fact]
    public void The_manifest_is_valid_and_names_everything_explicitly()
    {
        PSModuleInfo module = Host.One<PSModuleInfo>($"Test-ModuleManifest '{ModuleHost.Manifest}'");
        Assert.Equal(new Version(7, 6), module.PowerShellVersion);
        Assert.Equal(["Core"], module.CompatiblePSEditions);
        Assert.DoesNotContain(module.ExportedCmdlets.Keys, name => name.Contains('*', StringComparison.Ordinal));
        Assert.Empty(module.ExportedFunctions);
        Assert.Empty(module.ExportedAliases);
        Assert.Empty(module.RequiredAssemblies);
        Assert.Equal(typeof(LoKrCommand).Assembly.GetName().Version!.ToString(3), module.Version.ToString());
    }

    [Theory]
    [MemberData(nameof(Cmdlets))]
    public void Cmdlets_are_sealed_declare_their_output_and_may_be_rehearsed(string name)
    {
        Type type = Types().Single(type => Name(type) == name);
        CmdletAttribute attribute = (CmdletAttribute)type.GetCustomAttributes(typeof(CmdletAttribute), false).Single();
        Assert.True(type.IsSealed);
        Assert.Equal($"{name.Replace("-", "", StringComparison.Ordinal)}Command", type.Name);
        Assert.NotEmpty(type.GetCustomAttributes(typeof(OutputTypeAttribute), false));
        Assert.Equal(s_changing.Contains(attribute.VerbName) || name is "Import-LoKrAdapter" or "Invoke-LoKrModel", attribute.SupportsShouldProcess);
        Assert.All(Parameters(type), parameter => Assert.NotEqual(typeof(bool), parameter.PropertyType));
    }

    [Fact]
    public void Importing_the_module_loads_nothing_native_in_a_fresh_process()
    {
        ProcessResult result = ShellProcess.Run("-Command", "$null -eq [LoKr.Core.Runtime.TorchRuntime]::Current; [LoKr.PowerShell.Commands.NewLoKrConfigCommand].Name");
        Assert.Equal(["True", "NewLoKrConfigCommand"], result.Lines);
    }

    [Fact]
    public void Every_error_id_is_in_the_table_of_errors()
    {
        string table = File.ReadAllText(Path.Combine(Fixtures.Repository!, "docs", "errors.md"));
        foreach (System.Reflection.FieldInfo id in new[] { typeof(ErrorIds), typeof(ModuleErrorIds) }.SelectMany(type => type.GetFields()))
        {
            Assert.Contains($"`{id.GetRawConstantValue()}`", table, StringComparison.Ordinal);
        }
    }

    private static IEnumerable<Type> Types() => typeof(LoKrCommand).Assembly.GetTypes()
        .Where(type => type.IsDefined(typeof(CmdletAttribute), inherit: false));

    private static string Name(Type type)
    {
        CmdletAttribute attribute = (CmdletAttribute)type.GetCustomAttributes(typeof(CmdletAttribute), false).Single();
        return $"{attribute.VerbName}-{attribute.NounName}";
    }

    private static IEnumerable<System.Reflection.PropertyInfo> Parameters(Type type) =>
        type.GetProperties().Where(property => property.IsDefined(typeof(ParameterAttribute), inherit: true));
}
