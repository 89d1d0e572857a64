using Xunit.MicrosoftTestingPlatform;
using Xunit.Runner.InProc.SystemConsole;

namespace LoKr.Reliability;

/// <summary>The tests, and the processes that they start: the same program with a role as its first argument.</summary>
internal static class Program
{
    public static async Task<int> Main(string[] args) => args switch
    {
        [ChildProcess.Role, .. string[] role] => ChildRoles.Run(role),
        _ when args.Contains("--server") || args.Contains("--internal-msbuild-node") =>
            await TestPlatformTestFramework.RunAsync(args, SelfRegisteredExtensions.AddSelfRegisteredExtensions).ConfigureAwait(false),
        _ => await ConsoleRunner.Run(args).ConfigureAwait(false),
    };
}
