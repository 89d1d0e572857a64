using System.Globalization;
using System.Runtime.InteropServices;
using LoKr.Core.Errors;
using TorchSharp;

namespace LoKr.Core.Runtime;

/// <summary>How many threads torch computes with, and how they wait for each other.</summary>
internal static partial class TorchThreads
{
    /// <summary>Environment variable with the number of threads.</summary>
    public const string CountVariable = "LOKR_THREADS";

    private const string WaitPolicy = "OMP_WAIT_POLICY";

    // GNU's and LLVM's OpenMP read them once, when they are loaded.
    private static readonly string[] s_waitVariables = [WaitPolicy, "GOMP_SPINCOUNT", "KMP_BLOCKTIME"];

    /// <summary>
    /// Lets threads sleep while they wait for each other, unless the environment says how they wait. By default they spin, and where another
    /// process needs the processor each spins away the time that the thread it waits for would need.
    /// To be called before the OpenMP library is loaded.
    /// </summary>
    public static void SetWaitPolicy()
    {
        bool given = false;
        foreach (string name in s_waitVariables)
        {
            if (Environment.GetEnvironmentVariable(name) is { Length: > 0 } value)
            {
                // A value that a script has set is known only to .NET until here.
                SetNative(name, value);
                given = true;
            }
        }

        if (!given)
        {
            SetNative(WaitPolicy, "PASSIVE");
        }
    }

    /// <summary>The number of threads that was asked for: the given one, or <c>LOKR_THREADS</c>; null leaves the choice to torch.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.InvalidArgument"/>: it is not a positive number.</exception>
    public static int? Requested(int? threads)
    {
        string? variable = threads is null ? Environment.GetEnvironmentVariable(CountVariable) : null;
        if (threads is null && string.IsNullOrWhiteSpace(variable))
        {
            return null;
        }

        int count = threads ?? (int.TryParse(variable, NumberStyles.None, CultureInfo.InvariantCulture, out int parsed) ? parsed : 0);
        return count > 0 ? count : throw new LoKrException(
            ErrorIds.InvalidArgument,
            LoKrErrorKind.InvalidArgument,
            variable is null ? $"torch cannot compute with {threads} threads." : $"{CountVariable} is '{variable}', which is not a number of threads.",
            "Give a positive number, or none for as many as there are processors.") { Target = variable ?? (object)count };
    }

    /// <summary>Sets the number of threads of this process. libtorch is loaded.</summary>
    public static void SetCount(int count) => torch.set_num_threads(count);

    /// <summary>
    /// Runs work on as many threads as torch computes with, or fewer, and waits for them. Each computes alone: the operations on it share nothing with
    /// other threads, so that their results do not depend on the number of threads.
    /// </summary>
    /// <param name="most">Most threads.</param>
    /// <param name="work">Work of one thread, which takes its part by itself. It does not throw.</param>
    public static void RunAlone(int most, Action work)
    {
        int shared = torch.get_num_threads();
        Thread[] threads = new Thread[Math.Clamp(most, 1, shared)];
        using CountdownEvent ready = new(threads.Length);
        using ManualResetEventSlim start = new();
        for (int i = 0; i < threads.Length; i++)
        {
            threads[i] = new(() =>
            {
                // A thread has a number of its own from its first question on; setting it also sets that of threads to come.
                torch.get_num_threads();
                torch.set_num_threads(1);
                ready.Signal();
                start.Wait();
                work();
            });
            threads[i].Start();
        }

        ready.Wait();
        torch.set_num_threads(shared);
        start.Set();
        Array.ForEach(threads, static thread => thread.Join());
    }

    // Environment.SetEnvironmentVariable changes only .NET's own copy of the environment, except on Windows.
    private static void SetNative(string name, string value)
    {
        if (OperatingSystem.IsWindows())
        {
            Environment.SetEnvironmentVariable(name, value);
        }
        else if (SetEnv(name, value, 1) != 0)
        {
            throw new LoKrException(ErrorIds.RuntimeLoadFailed, LoKrErrorKind.Unavailable, $"The environment variable {name} cannot be set: {Marshal.GetLastPInvokeErrorMessage()}", null);
        }
    }

    [LibraryImport("libc", EntryPoint = "setenv", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int SetEnv(string name, string value, int overwrite);
}
