using LoKr.Shell;

CommandLine commandLine;
try
{
    commandLine = CommandLine.Parse(args);
}
catch (FormatException exception)
{
    Console.Error.WriteLine(exception.Message);
    Console.Error.WriteLine(CommandLine.Usage);
    return 64;
}

if (commandLine.Mode == ShellMode.Help)
{
    Console.WriteLine(CommandLine.Usage);
    return 0;
}

using Engine engine = new();
return commandLine.Mode switch
{
    ShellMode.Script => engine.RunScript(commandLine.Text, commandLine.Arguments),
    ShellMode.Command => engine.RunCommand(commandLine.Text),
    _ => new InteractivePrompt(engine).Run(),
};
