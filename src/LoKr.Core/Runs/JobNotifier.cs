using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Core.Runs;

/// <summary>Tells a program how a job ended.</summary>
public static class JobNotifier
{
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(1);

    /// <summary>Whether a result is told.</summary>
    /// <param name="notification">What the job says; null for nobody.</param>
    /// <param name="state">How the job ended.</param>
    public static bool IsDue(JobNotification? notification, LoKrJobState state) => notification is not null && (notification.On.Count == 0 || notification.On.Contains(state));

    /// <summary>Starts the command of a job, gives it the result and waits for its end, one minute at the longest.</summary>
    /// <param name="job">The job.</param>
    /// <param name="result">How it ended.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.NotificationFailed"/>: the program does not start, fails, or takes too long.</exception>
    public static void RunCommand(LoKrJob job, LoKrJobResult result)
    {
        ArgumentNullException.ThrowIfNull(job);
        ArgumentNullException.ThrowIfNull(result);
        if (job.Notify is not { Command: { Count: > 0 } command })
        {
            return;
        }

        string program = command[0];
        ProcessStartInfo start = new(program, command.Skip(1)) { WorkingDirectory = job.Folder, RedirectStandardInput = true };
        start.Environment["LOKR_JOB_NAME"] = result.Job;
        start.Environment["LOKR_JOB_STATE"] = result.State.ToString();
        start.Environment["LOKR_JOB_EXIT_CODE"] = result.ExitCode.ToString(CultureInfo.InvariantCulture);
        try
        {
            using Process process = Process.Start(start)!;
            try
            {
                process.StandardInput.WriteLine(JsonRecords.ToLine(result));
                process.StandardInput.Close();
            }
            catch (IOException)
            {
                // It reads nothing: the environment is enough for it.
            }

            if (!process.WaitForExit(s_patience))
            {
                process.Kill(entireProcessTree: true);
                throw Failed(program, $"did not end within {s_patience.TotalSeconds} seconds");
            }

            if (process.ExitCode != 0)
            {
                throw Failed(program, FormattableString.Invariant($"ended with exit code {process.ExitCode}"));
            }
        }
        catch (Win32Exception exception)
        {
            throw Failed(program, $"does not start: {exception.Message}", exception);
        }
    }

    private static LoKrException Failed(string program, string problem, Exception? cause = null) => new(
        ErrorIds.NotificationFailed, LoKrErrorKind.InvalidOperation, $"The command '{program}' that is told how the job ended {problem}.", "Correct the command.", cause) { Target = program };
}
