using System.Management.Automation.Runspaces;

namespace LoKr.Shell;

/// <summary>The arguments of the program.</summary>
/// <param name="Mode">What to do.</param>
/// <param name="Text">Script file or command.</param>
/// <param name="Arguments">Arguments of the script, as the parameter binder takes them.</param>
internal sealed record CommandLine(ShellMode Mode, string Text, IReadOnlyList<CommandParameter> Arguments)
{
    /// <summary>How to call the program.</summary>
    public const string Usage = """
        Runs PowerShell with the LoKr module on machines that have .NET but no pwsh.

          LoKr.Shell script.ps1 [-Name value] [-Switch] [value] …   runs a script
          LoKr.Shell -Command 'text'                                runs a command
          LoKr.Shell                                                reads commands from a prompt or standard input

        Ends with 0, with 1 after a terminating error, with N after `exit N`, and with 130 after Ctrl+C.
        """;

    /// <summary>Reads the arguments.</summary>
    public static CommandLine Parse(IReadOnlyList<string> args)
    {
        if (args.Count == 0)
        {
            return new(ShellMode.Prompt, "", []);
        }

        string first = args[0];
        if (IsOption(first, "h", "help", "?") || first == "--help")
        {
            return new(ShellMode.Help, "", []);
        }

        if (IsOption(first, "c", "command"))
        {
            return args.Count > 1
                ? new(ShellMode.Command, string.Join(' ', args.Skip(1)), [])
                : throw new FormatException("-Command needs a command.");
        }

        int script = IsOption(first, "f", "file") ? 1 : 0;
        if (script >= args.Count)
        {
            throw new FormatException("-File needs a script.");
        }

        return script == 0 && first.StartsWith('-')
            ? throw new FormatException($"Unknown option {first}.")
            : new(ShellMode.Script, args[script], [.. args.Skip(script + 1).Select(ToParameter)]);
    }

    // As pwsh -File does: -Name goes to the binder as a name, which takes the next value unless it is a switch; everything else is text.
    private static CommandParameter ToParameter(string argument)
    {
        if (argument.Length < 2 || argument[0] != '-' || !(char.IsLetter(argument[1]) || argument[1] is '_' or '?'))
        {
            return new CommandParameter(null, argument);
        }

        int colon = argument.IndexOf(':', StringComparison.Ordinal);
        if (colon < 0)
        {
            return new CommandParameter(argument);
        }

        string value = argument[(colon + 1)..];
        return new CommandParameter(argument[..(colon + 1)], value.ToUpperInvariant() switch
        {
            "$TRUE" => true,
            "$FALSE" => false,
            _ => value,
        });
    }

    private static bool IsOption(string argument, params string[] names) =>
        argument.StartsWith('-') && names.Contains(argument[1..], StringComparer.OrdinalIgnoreCase);
}
