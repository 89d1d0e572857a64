using System.Diagnostics;
using System.Globalization;
using System.Management.Automation;

namespace LoKr.Shell;

/// <summary>Progress as one line that is rewritten on a terminal, and as a line now and then in a log.</summary>
internal sealed class ProgressPrinter(TextWriter output, bool terminal)
{
    private static readonly TimeSpan s_quietTime = TimeSpan.FromSeconds(10);
    private readonly Lock _lock = new();
    private int _shownLength;
    private long _lastLine;

    /// <summary>Shows a record.</summary>
    public void Write(ProgressRecord record)
    {
        lock (_lock)
        {
            if (record.RecordType == ProgressRecordType.Completed)
            {
                Erase();
                return;
            }

            string line = Describe(record);
            if (terminal)
            {
                line = line.Length < Width ? line : line[..(Width - 1)];
                output.Write($"\r{line.PadRight(_shownLength)}");
                _shownLength = line.Length;
            }
            else if (_lastLine == 0 || Stopwatch.GetElapsedTime(_lastLine) >= s_quietTime)
            {
                _lastLine = Stopwatch.GetTimestamp();
                output.WriteLine(line);
            }
        }
    }

    /// <summary>Takes the line away so that other text can be written.</summary>
    public void Clear()
    {
        lock (_lock)
        {
            Erase();
        }
    }

    // The console knows its width through standard output; with that redirected some systems refuse to tell.
    private static int Width => !Console.IsOutputRedirected && Console.WindowWidth > 0 ? Console.WindowWidth : 80;

    private static string Describe(ProgressRecord record)
    {
        string percent = record.PercentComplete >= 0 ? string.Create(CultureInfo.InvariantCulture, $" {record.PercentComplete} %") : "";
        string left = record.SecondsRemaining >= 0
            ? string.Create(CultureInfo.InvariantCulture, $", {TimeSpan.FromSeconds(record.SecondsRemaining):g} left")
            : "";
        return $"{record.Activity}{percent}: {record.StatusDescription}{left}";
    }

    private void Erase()
    {
        if (_shownLength > 0)
        {
            output.Write($"\r{new string(' ', _shownLength)}\r");
            _shownLength = 0;
        }
    }
}
