using System.Reflection;
using TorchSharp;

namespace LoKr.Core.Runtime;

/// <summary>The places where libtorch is looked for, and the versions that fit.</summary>
/// <param name="Environment">Value of <c>LOKR_RUNTIME</c>, or null.</param>
/// <param name="Store">Per-user store of runtimes.</param>
/// <param name="ModuleFolder">Folder of LoKr.Core.dll.</param>
/// <param name="TorchSharpFolder">Folder of TorchSharp.dll.</param>
/// <param name="NuGetPackages">NuGet's global packages folder.</param>
/// <param name="TorchSharpVersion">Version of TorchSharp, for example 0.107.0.</param>
/// <param name="ExpectedLibtorch">Version of libtorch TorchSharp was built for, for example 2.10.0.</param>
internal sealed record RuntimeSearchPaths(
    string? Environment,
    string Store,
    string ModuleFolder,
    string TorchSharpFolder,
    string NuGetPackages,
    string TorchSharpVersion,
    string ExpectedLibtorch)
{
    /// <summary>The places of this process and user.</summary>
    public static RuntimeSearchPaths FromEnvironment()
    {
        // typeof does not run torch's static constructor; nothing native is touched here.
        Assembly torchSharp = typeof(torch).Assembly;
        return new RuntimeSearchPaths(
            Variable("LOKR_RUNTIME"),
            Path.Combine(Home(), "runtime"),
            FolderOf(typeof(RuntimeSearchPaths).Assembly),
            FolderOf(torchSharp),
            Variable("NUGET_PACKAGES") ?? Path.Combine(UserFolder(), ".nuget", "packages"),
            ThreeParts(torchSharp.GetName().Version?.ToString() ?? "unknown"),
            ThreeParts(LibtorchOf()));
    }

    /// <summary>The first three numbers of a version without its build label: 2.10.0.1 and 2.10.0+cpu are 2.10.0.</summary>
    public static string ThreeParts(string version)
    {
        string[] parts = version.Split('+', 2)[0].Split('.');
        return string.Join('.', parts.Take(3));
    }

    private static string Home()
    {
        string? home = Variable("LOKR_HOME");
        if (home is not null)
        {
            return Path.GetFullPath(home);
        }

        string data = System.Environment.GetFolderPath(
            System.Environment.SpecialFolder.LocalApplicationData,
            System.Environment.SpecialFolderOption.DoNotVerify);
        return Path.Combine(data.Length > 0 ? data : Path.Combine(UserFolder(), ".local", "share"), "LoKr");
    }

    private static string UserFolder()
    {
        string user = System.Environment.GetFolderPath(
            System.Environment.SpecialFolder.UserProfile,
            System.Environment.SpecialFolderOption.DoNotVerify);
        return user.Length > 0 ? user : Path.GetTempPath();
    }

    private static string FolderOf(Assembly assembly) =>
        assembly.Location.Length > 0 ? Path.GetDirectoryName(assembly.Location)! : AppContext.BaseDirectory;

    private static string? Variable(string name)
    {
        string? value = System.Environment.GetEnvironmentVariable(name);
        return string.IsNullOrWhiteSpace(value) ? null : value;
    }

    // TorchSharp keeps the libtorch it was compiled against in a private constant; a constant is read from metadata, so nothing runs.
    private static string LibtorchOf() =>
        typeof(torch).GetField("libtorchPackageVersion", BindingFlags.NonPublic | BindingFlags.Public | BindingFlags.Static)
            ?.GetRawConstantValue() as string
        ?? throw new LoKrException(
            ErrorIds.RuntimeVersionMismatch,
            LoKrErrorKind.NotSupported,
            $"This release of TorchSharp ({typeof(torch).Assembly.GetName().Version}) does not say which libtorch it was built for.",
            "Use the TorchSharp release that LoKr was built with.");
}
