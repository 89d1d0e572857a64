using System.ComponentModel;
using System.Runtime.InteropServices;

namespace LoKr.Reliability;

/// <summary>
/// System calls of Linux for these tests: a tracer that ends a process just before one of its system calls, and the filter that says at
/// which of them a process stops.
/// </summary>
internal static unsafe partial class NativeCalls
{
    private const int NotImplemented = 38;

    // System calls that change files or locks, by their numbers; what lies between two of them changes nothing that a kill could leave behind.
    private static readonly Dictionary<long, string> s_x64 = new()
    {
        [1] = "write", [18] = "pwrite64", [20] = "writev", [40] = "sendfile", [73] = "flock", [74] = "fsync", [75] = "fdatasync", [76] = "truncate", [77] = "ftruncate",
        [82] = "rename", [83] = "mkdir", [84] = "rmdir", [85] = "creat", [86] = "link", [87] = "unlink", [88] = "symlink", [90] = "chmod", [91] = "fchmod", [92] = "chown",
        [93] = "fchown", [94] = "lchown", [257] = "openat", [258] = "mkdirat", [260] = "fchownat", [263] = "unlinkat", [264] = "renameat", [265] = "linkat", [266] = "symlinkat",
        [268] = "fchmodat", [280] = "utimensat", [285] = "fallocate", [296] = "pwritev", [316] = "renameat2", [326] = "copy_file_range", [2] = "open",
    };

    private static readonly Dictionary<long, string> s_arm64 = new()
    {
        [64] = "write", [68] = "pwrite64", [66] = "writev", [71] = "sendfile", [32] = "flock", [82] = "fsync", [83] = "fdatasync", [45] = "truncate", [46] = "ftruncate",
        [34] = "mkdirat", [35] = "unlinkat", [36] = "symlinkat", [37] = "linkat", [38] = "renameat", [276] = "renameat2", [52] = "fchmod", [53] = "fchmodat", [54] = "fchownat",
        [55] = "fchown", [56] = "openat", [88] = "utimensat", [47] = "fallocate", [70] = "pwritev", [285] = "copy_file_range",
    };

    private static bool IsX64 => RuntimeInformation.ProcessArchitecture == Architecture.X64;

    private static Dictionary<long, string> Calls => IsX64 ? s_x64 : s_arm64;

    private static long MarkNumber => IsX64 ? 110 : 173;

    /// <summary>Whether this machine has what the tracer needs.</summary>
    public static bool CanTrace => OperatingSystem.IsLinux() && RuntimeInformation.ProcessArchitecture is Architecture.X64 or Architecture.Arm64;

    /// <summary>A system call that nothing else makes: the tracer counts between two of them.</summary>
    public static void Mark() => _ = GetParent();

    /// <summary>
    /// Lets this thread, and those that it starts, stop for their tracer before every system call that changes files, and at a <see cref="Mark"/>.
    /// Without a tracer these calls fail from now on.
    /// </summary>
    /// <param name="withoutExchange">Whether renameat2 fails as on a system without it.</param>
    public static void StopAtChanges(bool withoutExchange)
    {
        const int NoNewPrivileges = 38, SetSeccomp = 22, Filter = 2;
        const ushort LoadNumber = 0x20, JumpIfEqual = 0x15, Return = 0x06;
        const uint Fail = 0x00050000, Stop = 0x7ff00000, Allow = 0x7fff0000;
        long exchange = Calls.Single(static call => call.Value == "renameat2").Key;
        long[] stops = [.. Calls.Keys.Where(number => !withoutExchange || number != exchange), MarkNumber];
        FilterStep[] steps =
        [
            new() { Code = LoadNumber },
            .. stops.Select((number, index) => new FilterStep { Code = JumpIfEqual, Value = (uint)number, Matches = (byte)(stops.Length - index + 2) }),
            new() { Code = JumpIfEqual, Value = (uint)exchange, Otherwise = 1 },
            new() { Code = Return, Value = Fail | NotImplemented },
            new() { Code = Return, Value = Allow },
            new() { Code = Return, Value = Stop },
        ];
        fixed (FilterStep* first = steps)
        {
            FilterProgram program = new() { Length = (ushort)steps.Length, Steps = first };
            if (Control(NoNewPrivileges, 1, 0, 0, 0) != 0 || Control(SetSeccomp, Filter, (nint)(&program), 0, 0) != 0)
            {
                throw new Win32Exception(Marshal.GetLastPInvokeError());
            }
        }
    }

    /// <summary>
    /// Runs a role in a process of its own, and kills it just before a system call that changes files, of its main thread or one that it starts.
    /// Has to run on one thread from beginning to end. .NET's own class for processes would take the stops for itself.
    /// </summary>
    /// <param name="role">The role, which calls <see cref="StopAtChanges"/> and marks where to begin and to end.</param>
    /// <param name="point">Which of these system calls, from 1; 0 for none, to count them.</param>
    /// <returns>Names of the system calls until then, the last one the one that did not happen any more.</returns>
    /// <exception cref="Win32Exception">This process may not trace others.</exception>
    public static IReadOnlyList<string> RunUntil(string[] role, int point)
    {
        const int Seize = 0x4206, Continue = 7, GetInfo = 0x420e, FollowThreads = 8, StopAtFilter = 0x80, EndWithTracer = 0x100000;
        const int Trap = 5, FilterStop = Trap | (7 << 8), Stopped = 0x7f, KillSignal = 9, NoSuchProcess = 3;
        int child = Start(["dotnet", typeof(NativeCalls).Assembly.Location, ChildProcess.Role, .. role]);
        CheckResult(Trace(Seize, child, 0, FollowThreads | StopAtFilter | EndWithTracer));
        List<string> calls = [];
        int marks = 0;
        bool killed = false;
        while (true)
        {
            int thread = NextStatus(out int status);
            if ((status & 0xff) != Stopped)
            {
                if (thread == child)
                {
                    return status == (killed ? KillSignal : 0) ? calls : throw new InvalidOperationException($"The process ended with status {status:x} after {calls.Count} calls.");
                }

                continue;
            }

            int stop = status >> 8;
            CallInfo info = default;
            if (stop == FilterStop && !killed && Trace(GetInfo, thread, sizeof(CallInfo), (nint)(&info)) > 0)
            {
                marks += info.Number == MarkNumber ? 1 : 0;
                if (marks == 1 && Calls.TryGetValue(info.Number, out string? name) && Changes(name, info))
                {
                    calls.Add(name);
                    if (calls.Count == point)
                    {
                        killed = true;
                        CheckResult(SendSignal(child, KillSignal));
                        continue;
                    }
                }
            }

            // Signals, those of the garbage collector among them, are passed on. A thread that was killed is there no more.
            if (Trace(Continue, thread, 0, stop >> 8 == 0 && stop != Trap ? stop : 0) < 0 && Marshal.GetLastPInvokeError() != NoSuchProcess)
            {
                throw new Win32Exception(Marshal.GetLastPInvokeError());
            }
        }
    }

    /// <summary>Runs something on a thread of its own: a tracer is a thread, not a process.</summary>
    public static Task<T> OnOneThread<T>(Func<T> action)
    {
        TaskCompletionSource<T> done = new(TaskCreationOptions.RunContinuationsAsynchronously);
        new Thread(() =>
        {
            try
            {
                done.SetResult(action());
            }
            catch (Exception exception)
            {
                done.SetException(exception);
            }
        }).Start();
        return done.Task;
    }

    // Opening a file changes something only where it creates or truncates it.
    private static bool Changes(string name, CallInfo info)
    {
        const ulong Create = 0x40, Truncate = 0x200;
        ulong flags = name switch { "open" => info.Second, "openat" => info.Third, _ => Create };
        return (flags & (Create | Truncate)) != 0;
    }

    private static int Start(string[] command)
    {
        string?[] variables = [.. Environment.GetEnvironmentVariables().Cast<System.Collections.DictionaryEntry>().Select(static pair => $"{pair.Key}={pair.Value}"), null];
        int error = Spawn(out int child, command[0], 0, 0, [.. command, null], variables);
        return error == 0 ? child : throw new Win32Exception(error);
    }

    private static int NextStatus(out int status)
    {
        const int AnyKind = 0x40000000, OfThisThread = 0x20000000, Interrupted = 4;
        int thread;
        fixed (int* result = &status)
        {
            while ((thread = WaitFor(-1, result, AnyKind | OfThisThread)) < 0)
            {
                if (Marshal.GetLastPInvokeError() != Interrupted)
                {
                    throw new Win32Exception(Marshal.GetLastPInvokeError());
                }
            }
        }

        return thread;
    }

    private static void CheckResult(nint result)
    {
        if (result < 0)
        {
            throw new Win32Exception(Marshal.GetLastPInvokeError());
        }
    }

    [LibraryImport("libc", EntryPoint = "ptrace", SetLastError = true)]
    private static partial nint Trace(nint request, int process, nint address, nint data);

    [LibraryImport("libc", EntryPoint = "waitpid", SetLastError = true)]
    private static partial int WaitFor(int process, int* status, int options);

    [LibraryImport("libc", EntryPoint = "posix_spawnp", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Spawn(out int process, string file, nint actions, nint attributes, string?[] arguments, string?[] variables);

    [LibraryImport("libc", EntryPoint = "kill", SetLastError = true)]
    private static partial int SendSignal(int process, int signal);

    [LibraryImport("libc", EntryPoint = "prctl", SetLastError = true)]
    private static partial int Control(int option, nint second, nint third, nint fourth, nint fifth);

    [LibraryImport("libc", EntryPoint = "getppid")]
    private static partial int GetParent();

    [StructLayout(LayoutKind.Sequential)]
    private struct CallInfo
    {
        public byte Kind;
        public uint Architecture;
        public ulong Instruction;
        public ulong Stack;
        public long Number;
        public ulong First;
        public ulong Second;
        public ulong Third;
        public ulong Fourth;
        public ulong Fifth;
        public ulong Sixth;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct FilterStep
    {
        public ushort Code;
        public byte Matches;
        public byte Otherwise;
        public uint Value;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct FilterProgram
    {
        public ushort Length;
        public FilterStep* Steps;
    }
}
