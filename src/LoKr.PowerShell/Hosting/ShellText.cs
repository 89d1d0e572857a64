using LoKr.Core.Errors;

namespace LoKr.PowerShell.Hosting;

/// <summary>Texts for shell scripts and for the options of sbatch.</summary>
internal static class ShellText
{
    /// <summary>A word of a shell of Unix.</summary>
    public static string Word(string text) => $"'{text.Replace("'", "'\\''", StringComparison.Ordinal)}'";

    /// <summary>A word of an option in a batch script of Slurm, where options are split at spaces, with quotation marks and backslashes as in a shell.</summary>
    public static string BatchWord(string text) => $"\"{text.Replace("\\", @"\\", StringComparison.Ordinal).Replace("\"", "\\\"", StringComparison.Ordinal)}\"";

    /// <summary>Refuses a path that cannot stand in a line of a file.</summary>
    /// <param name="path">The path.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.InvalidArgument"/>.</exception>
    public static void RequireOneLine(string path)
    {
        if (path.Any(char.IsControl))
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, $"'{path}' has a line break or another control character, which no scheduler takes.", "Use another folder.")
            { Target = path };
        }
    }

    /// <summary>
    /// Lines of bash that run a command to its end, hand SIGUSR1 and SIGTERM on to it as SIGTERM, and leave its exit code in <c>code</c>.
    /// <c>wait</c> ends with every signal; only the one after which none came has the exit code.
    /// </summary>
    /// <param name="words">The command, each word quoted.</param>
    public static string RunAndForward(IEnumerable<string> words) => $$"""
        pid=
        signaled=
        trap 'signaled=1; [ -z "$pid" ] || kill -TERM "$pid" 2>/dev/null' USR1 TERM
        {{string.Join(' ', words)}} &
        pid=$!
        [ -z "$signaled" ] || kill -TERM "$pid"
        while :; do
            signaled=
            wait "$pid"
            code=$?
            [ -n "$signaled" ] || break
        done
        """;
}
