using System.Management.Automation.Language;
using System.Text;

namespace LoKr.Shell;

/// <summary>Reads commands from the console or standard input and runs each when it is complete.</summary>
internal sealed class InteractivePrompt(Engine engine)
{
    private readonly bool _show = !Console.IsInputRedirected;

    /// <summary>Runs until <c>exit</c> or the end of input; the status of the program.</summary>
    public int Run()
    {
        StringBuilder text = new();
        int status = 0;
        while (true)
        {
            if (_show)
            {
                Console.Error.Write(text.Length == 0 ? "LoKr> " : ">> ");
            }

            if (Console.In.ReadLine() is not string line)
            {
                return text.Length > 0 ? engine.RunText(text.ToString()) : status;
            }

            text.AppendLine(line);
            // An empty line ends what the parser still thinks is open, so that its error is seen.
            if (line.Length > 0 && IsIncomplete(text.ToString()))
            {
                continue;
            }

            status = engine.RunText(text.ToString());
            text.Clear();
            if (engine.ShouldExit)
            {
                return status;
            }
        }
    }

    private static bool IsIncomplete(string text)
    {
        Parser.ParseInput(text, out _, out ParseError[] errors);
        return errors.Any(error => error.IncompleteInput);
    }
}
