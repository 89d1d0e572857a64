namespace LoKr.Shell;

/// <summary>What the shell was started for.</summary>
internal enum ShellMode
{
    /// <summary>Lines typed at a prompt, or read from standard input.</summary>
    Prompt,

    /// <summary>A script file with arguments.</summary>
    Script,

    /// <summary>A command given on the command line.</summary>
    Command,

    /// <summary>The usage text.</summary>
    Help,
}
