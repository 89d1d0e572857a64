namespace LoKr.PowerShell.Hosting;

/// <summary>How pwsh, or LoKr.Shell, was started.</summary>
internal static class ShellArguments
{
    // By the names that pwsh has for them; it takes every beginning of a name from the shortest one on.
    private static readonly (string Shortest, string Name)[] s_scripts =
        [("f", "file"), ("c", "command"), ("cwa", "cwa"), ("commandwithargs", "commandwithargs"), ("e", "encodedcommand"), ("ec", "ec")];

    private static readonly (string Shortest, string Name)[] s_withValue =
    [
        ("ex", "executionpolicy"), ("ep", "ep"), ("wo", "workingdirectory"), ("wd", "wd"), ("w", "windowstyle"), ("v", "version"), ("o", "outputformat"), ("of", "of"), ("inp", "inputformat"), ("if", "if"),
        ("config", "configurationname"), ("configurationfile", "configurationfile"), ("cus", "custompipename"), ("settings", "settingsfile"), ("encodeda", "encodedarguments"), ("token", "token"), ("utctimestamp", "utctimestamp"),
    ];

    /// <summary>Whether the shell runs a script or a command and then ends, so that there is no prompt to come back to.</summary>
    /// <param name="arguments">Arguments of the process, the program first.</param>
    public static bool EndAfterScript(IReadOnlyList<string> arguments)
    {
        bool stays = false;
        for (int i = 1; i < arguments.Count; i++)
        {
            if (arguments[i].Length < 2 || arguments[i][0] is not ('-' or '\u2013' or '\u2014' or '\u2015') && !(OperatingSystem.IsWindows() && arguments[i][0] == '/'))
            {
                // A script, or with - alone the standard input.
                return !stays && arguments[i] != "-";
            }

            string name = arguments[i].TrimStart('-', '\u2013', '\u2014', '\u2015', '/').ToLowerInvariant();
            if (Matches(s_scripts, name))
            {
                return !stays && i + 1 < arguments.Count && arguments[i + 1] != "-";
            }

            stays |= Matches([("noe", "noexit"), ("i", "interactive"), ("s", "servermode"), ("sshs", "sshservermode")], name);
            i += Matches(s_withValue, name) ? 1 : 0;
        }

        return false;
    }

    private static bool Matches((string Shortest, string Name)[] parameters, string given) => Array.Exists(parameters,
        parameter => given.StartsWith(parameter.Shortest, StringComparison.Ordinal) && parameter.Name.StartsWith(given, StringComparison.Ordinal));
}
