using System.Management.Automation;
using System.Reflection;
using System.Text.RegularExpressions;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Errors;
using Xunit;

namespace LoKr.PowerShell.Tests.Errors;

/// <summary>Advice names cmdlets and parameters that exist, and reaches the error record and the exception alike.</summary>
public sealed partial class AdviceTests
{
    private static readonly Type[] s_cmdlets = [.. typeof(LoKrCommand).Assembly.GetTypes().Where(type => type.GetCustomAttribute<CmdletAttribute>() is not null)];

    // Every situation that Advice.For tells apart, beside the texts that depend on the id alone.
    public static TheoryData<string, LoKrErrorKind, string?, string> Situations() => new()
    {
        { ErrorIds.TargetModuleNotFound, LoKrErrorKind.NotFound, "TrainNorm", "Add-LoKrAdapter" },
        { ErrorIds.TargetModuleNotFound, LoKrErrorKind.NotFound, "query", "Add-LoKrAdapter" },
        { ErrorIds.TargetModulesRequired, LoKrErrorKind.InvalidArgument, "Models", "Add-LoKrAdapter" },
        { ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, "MaxShardBytes", "Export-LoKrModel" },
        { ErrorIds.NothingToMerge, LoKrErrorKind.InvalidOperation, null, "Merge-LoKrAdapter" },
        { ErrorIds.AdapterAmbiguous, LoKrErrorKind.InvalidArgument, null, "Start-LoKrTraining" },
        { ErrorIds.AdapterAmbiguous, LoKrErrorKind.InvalidArgument, null, "Export-LoKrAdapter" },
        { ErrorIds.AdapterModulesUnknown, LoKrErrorKind.InvalidArgument, "a_b", "Convert-LoKrAdapter" },
        { ErrorIds.AdapterModulesUnknown, LoKrErrorKind.InvalidData, "a.b", "Import-LoKrAdapter" },
        { ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported, null, "Convert-LoKrAdapter" },
        { ErrorIds.ConversionUnsupported, LoKrErrorKind.NotSupported, null, "Export-LoKrAdapter" },
        { ErrorIds.FileNotWritable, LoKrErrorKind.InputOutput, "/x", "Start-LoKrTraining" },
        { ErrorIds.CaptionMissing, LoKrErrorKind.InvalidData, "/x/a.png", "Start-LoKrTraining" },
        { ErrorIds.DeviceNotFound, LoKrErrorKind.Unavailable, "cuda:7", "Import-LoKrModel" },
        { ErrorIds.RuntimeVersionMismatch, LoKrErrorKind.NotSupported, "/x", "Get-LoKrRuntime" },
        { ErrorIds.ImageSizeInvalid, LoKrErrorKind.InvalidArgument, "Width", "Invoke-LoKrModel" },
        { ErrorIds.ModelConfigUnsupported, LoKrErrorKind.NotSupported, null, "Invoke-LoKrModel" },
        { ErrorIds.ModelTypeUnknown, LoKrErrorKind.NotSupported, "mamba", "Import-LoKrModel" },
    };

    [Fact]
    public void Advice_by_id_names_existing_cmdlets_and_parameters()
    {
        Assert.NotEmpty(Advice.Texts);
        Assert.All(Advice.Texts.Values, CheckNames);
    }

    [Theory]
    [MemberData(nameof(Situations))]
    public void Advice_by_situation_names_existing_cmdlets_and_parameters(string id, LoKrErrorKind kind, string? target, string command)
    {
        string? advice = Advice.For(new LoKrException(id, kind, "It fails.", "Do it otherwise.") { Target = target }, command);
        Assert.NotNull(advice);
        CheckNames(advice);
    }

    [Fact]
    public void An_id_without_an_entry_keeps_the_advice_of_the_library()
    {
        LoKrException error = new(ErrorIds.RankInvalid, LoKrErrorKind.InvalidArgument, "R is 0.", "Use 8 to begin with.");
        Assert.Null(Advice.For(error, "New-LoKrConfig"));
        ErrorRecord record = ErrorFactory.Create(error, "New-LoKrConfig");
        Assert.Same(error, record.Exception);
        Assert.Equal("Use 8 to begin with.", record.ErrorDetails.RecommendedAction);
    }

    [Fact]
    public void What_the_system_does_not_permit_has_its_own_category_whatever_wrapped_it()
    {
        UnauthorizedAccessException denied = new("Access to the path '/x' is denied.");
        Assert.All(new Exception[] { denied, FileErrors.NotReadable("/x", denied), FileErrors.NotWritable("/x", denied) },
            error => Assert.Equal(ErrorCategory.PermissionDenied, ErrorFactory.Create(error, "Export-LoKrModel").CategoryInfo.Category));
        Assert.Equal(ErrorCategory.DeviceError, ErrorFactory.Create(FileErrors.NotReadable("/x", new IOException("It is busy.")), "Export-LoKrModel").CategoryInfo.Category);
    }

    [Fact]
    public void The_record_and_its_exception_hold_the_advice_and_the_place_of_the_error()
    {
        LoKrException error = Assert.Throws<LoKrException>(Fail);
        ErrorRecord record = ErrorFactory.Create(error, "Remove-LoKrAdapter");

        Assert.Contains("Undo-LoKrMerge", record.ErrorDetails.RecommendedAction, StringComparison.Ordinal);
        Assert.Equal($"It is merged. {record.ErrorDetails.RecommendedAction}", record.Exception.Message);
        Assert.Equal("It is merged.", record.ErrorDetails.Message);
        Assert.Equal("a", record.TargetObject);
        Assert.Contains(nameof(Fail), record.Exception.StackTrace, StringComparison.Ordinal);
    }

    private static void Fail() => throw new LoKrException(ErrorIds.AdapterMerged, LoKrErrorKind.InvalidOperation, "It is merged.", "Undo the merge first.") { Target = "a" };

    private static void CheckNames(string advice)
    {
        MatchCollection names = NamePattern().Matches(advice);
        Assert.NotEmpty(names);
        foreach (string name in names.Select(match => match.Value))
        {
            Assert.True(name[0] == '-' ? IsParameter(name[1..]) : IsCmdlet(name), $"There is no {name}: {advice}");
        }
    }

    private static bool IsCmdlet(string name) => s_cmdlets.Select(type => type.GetCustomAttribute<CmdletAttribute>()!)
        .Any(cmdlet => $"{cmdlet.VerbName}-{cmdlet.NounName}" == name);

    private static bool IsParameter(string name) => s_cmdlets.Any(type => type.GetProperty(name)?.IsDefined(typeof(ParameterAttribute)) == true);

    [GeneratedRegex(@"\b[A-Z][a-z]+-LoKr[A-Za-z]+|(?<=\s|^)-[A-Z][A-Za-z]+")]
    private static partial Regex NamePattern();
}
