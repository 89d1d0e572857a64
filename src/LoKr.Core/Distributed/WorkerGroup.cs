using System.Globalization;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using System.Text;
using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Core.Distributed;

/// <summary>
/// Processes that train one adapter, or evaluate one model, together. Every worker makes the same calls in the same order; what they exchange in one
/// is the same for all of them. An error of one worker is an error of all, and a worker that ends early ends the others with an error.
/// </summary>
/// <remarks>
/// A call is one exchange of sixteen bytes a worker, which say what it does and how much follows, and one of the contents. So workers that do different
/// things are told apart before either reads the other's numbers.
/// </remarks>
public sealed class WorkerGroup
{
    /// <summary>Batches of a step where several workers may share it and no number was chosen: the numbers of a run depend on it, so it does not depend on the workers.</summary>
    public const int DefaultBatchesPerStep = 8;

    // A process starts MPI once, and ends it when it ends itself.
    private static readonly Lazy<WorkerGroup> s_joined = new(() =>
    {
        WorkerGroup group = new(MpiTransport.Start(Launch.Current));
        AppDomain.CurrentDomain.ProcessExit += (_, _) => group.Leave(Environment.ExitCode);
        return group;
    });

    private static readonly JsonErrors s_recordErrors = new(ErrorIds.WorkersDiffer, ErrorIds.WorkersDiffer, "Use the same version of the library on every worker.");

    private readonly ITransport _transport;
    private readonly Header[] _headers;
    private byte[] _received = [];
    private Exception? _shared;
    private LoKrException? _ended;
    private bool _hasWorked;
    private int _owner; // the thread that does something with the others

    internal WorkerGroup(ITransport transport) => (_transport, _headers) = (transport, new Header[transport.Size]);

    /// <summary>Index of this worker, from 0. The first one alone writes files and shows what happens.</summary>
    public int Rank => _transport.Rank;

    /// <summary>Number of workers.</summary>
    public int Size => _transport.Size;

    /// <summary>Whether this is the first worker.</summary>
    public bool IsFirst => Rank == 0;

    /// <summary>Library that carries the messages, with its version.</summary>
    public string Transport => _transport.Name;

    /// <summary>Bytes of content that this worker gave to the others up to now, once however many they are; the sixteen bytes of each call are not counted.</summary>
    public long BytesGiven { get; private set; }

    /// <summary>Whether a process with this mode may be one of several, even if it is the only one.</summary>
    /// <param name="mode">Whether it is to work with others.</param>
    public static bool IsAsked(DistributedMode mode) => mode is DistributedMode.Mpi || (mode is DistributedMode.Auto && Launch.Current is not null);

    /// <summary>The workers that this process belongs to; null where it works alone. The first call that finds others starts MPI.</summary>
    /// <param name="mode">Whether it is to work with others.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.MpiNotFound"/>, <see cref="ErrorIds.MpiNotUsable"/>.</exception>
    public static WorkerGroup? Join(DistributedMode mode) =>
        (mode is DistributedMode.Mpi || (mode is DistributedMode.Auto && Launch.Current is { Size: > 1 })) && s_joined.Value is { Size: > 1 } group ? group : null;

    /// <summary>
    /// Starts MPI where a launcher started several processes and its library is installed, before there is anything to do together: only then do the others
    /// learn of a process that ends with an error before it comes to that.
    /// </summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.MpiNotUsable"/>.</exception>
    public static void Meet()
    {
        if (Launch.Current is { Size: > 1 } launch && MpiTransport.IsInstalled(launch))
        {
            _ = s_joined.Value;
        }
    }

    /// <summary>Whether this process has worked with others and is not the first of them, which writes files for all.</summary>
    public static bool IsFollowing => s_joined is { IsValueCreated: true, Value: { IsFirst: false, _hasWorked: true } };

    /// <summary>Does what all workers do together. No other thread may do so at the same time.</summary>
    /// <param name="work">The work; every worker makes the same exchanges in it.</param>
    /// <exception cref="LoKrException">
    /// What the work throws, on this worker or another; <see cref="ErrorIds.WorkerFailed"/> for what another one threw that has no id, and where one has ended;
    /// <see cref="ErrorIds.WorkersDiffer"/>; <see cref="ErrorIds.ModelBusy"/>.
    /// </exception>
    public T Run<T>(Func<T> work)
    {
        ArgumentNullException.ThrowIfNull(work);
        _hasWorked = true;
        int thread = Environment.CurrentManagedThreadId;
        int owner = Interlocked.CompareExchange(ref _owner, thread, 0);
        if (owner == thread)
        {
            return work();
        }

        if (owner != 0)
        {
            throw new LoKrException(ErrorIds.ModelBusy, LoKrErrorKind.InvalidOperation, "The workers already do something together.", "Let one command end before the next begins.");
        }

        try
        {
            return work();
        }
        catch (Exception exception) when (!ReferenceEquals(exception, _shared))
        {
            // The others learn of it in the call that they make next.
            if (_ended is null)
            {
                Tell(WorkerCall.Failed, WorkerError.Of(exception).ToBytes());
            }

            throw;
        }
        finally
        {
            _shared = null;
            Volatile.Write(ref _owner, 0);
        }
    }

    /// <summary>Gives bytes to all workers and gets those of all.</summary>
    /// <param name="call">What the worker does.</param>
    /// <param name="mine">The bytes of this worker.</param>
    /// <returns>The bytes of each, valid until the next exchange.</returns>
    /// <exception cref="WorkersStoppedException">A worker was stopped; all of them throw.</exception>
    /// <exception cref="LoKrException">A worker failed, ended, or does something else; all of them throw.</exception>
    internal WorkerMessages Exchange(WorkerCall call, ReadOnlySpan<byte> mine)
    {
        WorkerMessages messages = Tell(call, mine);
        if (FirstWith(WorkerCall.Failed) is int failed)
        {
            throw Share(WorkerError.Parse(messages[failed].Span).ToException(failed));
        }

        if (FirstWith(WorkerCall.Stopped) is int stopped)
        {
            throw Share(new WorkersStoppedException(Encoding.UTF8.GetString(messages[stopped].Span)));
        }

        if (_ended is not null)
        {
            throw Share(_ended);
        }

        int other = Array.FindIndex(_headers, header => header.Call != _headers[0].Call);
        return other < 0 ? messages : throw Share(Differ(other, $"worker {other} does '{_headers[other].Call}' where worker 0 does '{_headers[0].Call}'"));
    }

    /// <summary>Compares what the work depends on, and what its numbers depend on: data, models and options of the caller, the threads and the processor of each.</summary>
    /// <param name="conditions">What the caller compares, by name, as the end of a sentence: other data.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.WorkersDiffer"/>, naming the worker and the first difference.</exception>
    internal void Agree(params IEnumerable<(string Name, string? Value)> conditions)
    {
        (string Name, string? Value)[] all = [.. conditions, ("kind of processor", Processor())];
        WorkerMessages messages = Exchange(WorkerCall.Agree, Encoding.UTF8.GetBytes(string.Join('\n', all.Select(static condition => condition.Value))));
        string[] first = Encoding.UTF8.GetString(messages[0].Span).Split('\n');
        for (int rank = 1; rank < Size; rank++)
        {
            string[] other = Encoding.UTF8.GetString(messages[rank].Span).Split('\n');
            int index = Enumerable.Range(0, Math.Min(all.Length, Math.Min(first.Length, other.Length))).FirstOrDefault(i => first[i] != other[i], -1);
            if (index >= 0 || first.Length != other.Length)
            {
                throw Differ(rank, index < 0 ? FormattableString.Invariant($"worker {rank} has another version of the library than worker 0")
                    : FormattableString.Invariant($"in {all[index].Name}, {Short(other[index])} on worker {rank} and {Short(first[index])} on worker 0"));
            }
        }
    }

    /// <summary>Gets the bytes of the first worker.</summary>
    /// <param name="call">What the worker does.</param>
    /// <param name="first">What the first worker gives; the others give nothing.</param>
    internal ReadOnlySpan<byte> FromFirst(WorkerCall call, ReadOnlySpan<byte> first) => Exchange(call, IsFirst ? first : default)[0].Span;

    /// <summary>Gets a record of the first worker, which has its own already.</summary>
    /// <param name="call">What the worker does.</param>
    /// <param name="name">What it is, for messages.</param>
    /// <param name="own">The record of the first worker, or null for none; the others give none.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.WorkersDiffer"/>: the first worker has another version of the library.</exception>
    internal T? RecordOfFirst<T>(WorkerCall call, string name, T? own)
        where T : class
    {
        ReadOnlySpan<byte> json = FromFirst(call, IsFirst && own is not null ? Encoding.UTF8.GetBytes(JsonRecords.ToLine(own)) : default);
        return IsFirst ? own : json.Length == 0 ? null : JsonRecords.Parse<T>(Encoding.UTF8.GetString(json), $"{name} of worker 0", s_recordErrors);
    }

    /// <summary>Stops the others in the call that they make next, as this worker is stopped.</summary>
    /// <param name="reason">A stop that the work reports by name; empty where it was canceled.</param>
    internal WorkersStoppedException Stop(string reason)
    {
        Tell(WorkerCall.Stopped, Encoding.UTF8.GetBytes(reason));
        return (WorkersStoppedException)Share(new WorkersStoppedException(reason));
    }

    /// <summary>The error of workers that are not equal, which every worker throws.</summary>
    /// <param name="rank">The first worker that differs from worker 0.</param>
    /// <param name="how">How, as the end of a sentence.</param>
    internal LoKrException Differ(int rank, string how)
    {
        LoKrException exception = new(ErrorIds.WorkersDiffer, LoKrErrorKind.InvalidOperation, $"The workers differ: {how}.",
            "Run the same script with the same data, model and options on every worker, with the same number of threads and on the same kind of processor.") { Target = rank };
        return (LoKrException)Share(exception);
    }

    /// <summary>Ends the part of this worker when its process ends; the others get an error if they still do something together.</summary>
    /// <param name="exitCode">The exit code of the process.</param>
    internal void Leave(int exitCode)
    {
        if (Volatile.Read(ref _owner) != 0)
        {
            // The process ends in the middle of an exchange of another thread.
            _transport.Abort(exitCode == 0 ? 1 : exitCode);
            return;
        }

        if (_ended is null)
        {
            Tell(WorkerCall.Left, default, exitCode);
        }

        _transport.Dispose();
    }

    private WorkerMessages Tell(WorkerCall call, ReadOnlySpan<byte> mine, int status = 0)
    {
        if (_ended is not null)
        {
            throw Share(_ended);
        }

        Header header = new(call, status, mine.Length);
        _transport.AllGather(MemoryMarshal.AsBytes(new ReadOnlySpan<Header>(in header)), MemoryMarshal.AsBytes(_headers.AsSpan()));

        // Where workers do different things only the reason is read, and everyone knows from the headers whose.
        WorkerCall? only = FirstWith(WorkerCall.Failed) is not null ? WorkerCall.Failed : FirstWith(WorkerCall.Stopped) is not null ? WorkerCall.Stopped : null;
        bool same = Array.TrueForAll(_headers, other => other.Call == _headers[0].Call);
        int[] counts = Array.ConvertAll(_headers, other => (only is null ? same : other.Call == only) ? checked((int)other.Length) : 0);
        int left = Array.FindIndex(_headers, static other => other.Call == WorkerCall.Left);
        if (left >= 0)
        {
            _ended = new LoKrException(ErrorIds.WorkerFailed, LoKrErrorKind.InvalidOperation,
                FormattableString.Invariant($"Worker {left} has ended with exit code {_headers[left].Status}."), "Its own output says why.") { Target = left };
        }

        WorkerMessages messages = new(_received, counts);
        if (messages.Length > 0)
        {
            if (messages.Length > _received.Length)
            {
                messages = new(_received = new byte[messages.Length], counts);
            }

            _transport.AllGather(mine[..counts[Rank]], _received.AsSpan(0, messages.Length), counts);
            BytesGiven += counts[Rank];
        }

        return messages;
    }

    // Sums of vectors depend on their width.
    private static string Processor() => string.Create(CultureInfo.InvariantCulture,
        $"{RuntimeInformation.ProcessArchitecture}, {Environment.GetEnvironmentVariable("ATEN_CPU_CAPABILITY") ?? (Vector512.IsHardwareAccelerated ? "512 bits" : Vector256.IsHardwareAccelerated ? "256 bits" : "128 bits")}");

    private static string Short(string value) => value.Length == 0 ? "none" : value.Length == 64 ? value[..8] : value;

    private int? FirstWith(WorkerCall call) => Array.FindIndex(_headers, header => header.Call == call) is >= 0 and int rank ? rank : null;

    private Exception Share(Exception exception) => _shared = exception;

    [StructLayout(LayoutKind.Sequential, Pack = 1)]
    private readonly record struct Header(WorkerCall Call, int Status, long Length);
}

/// <summary>Acts of a worker in an exchange.</summary>
internal enum WorkerCall
{
    /// <summary>Compares what the work depends on.</summary>
    Agree = 1,

    /// <summary>Gets what the first worker begins with.</summary>
    Begin,

    /// <summary>Adds the gradients of a step.</summary>
    Step,

    /// <summary>Compares the trained values.</summary>
    Compare,

    /// <summary>Collects the scores of an evaluation.</summary>
    Evaluate,

    /// <summary>Collects the results of inference.</summary>
    Collect,

    /// <summary>Was stopped.</summary>
    Stopped,

    /// <summary>Threw an exception.</summary>
    Failed,

    /// <summary>Ends its process.</summary>
    Left,
}

/// <summary>Contributions of the workers to one exchange.</summary>
/// <param name="All">The bytes of all, one after the other.</param>
/// <param name="Counts">How many are of each.</param>
internal readonly record struct WorkerMessages(byte[] All, int[] Counts)
{
    /// <summary>Bytes of all.</summary>
    public int Length => checked(Counts.Sum());

    /// <summary>Bytes of one worker.</summary>
    public ReadOnlyMemory<byte> this[int rank] => All.AsMemory(Counts.AsSpan(0, rank).ToArray().Sum(), Counts[rank]);
}

/// <summary>Carries bytes between workers.</summary>
internal interface ITransport : IDisposable
{
    /// <summary>Name with version.</summary>
    string Name { get; }

    /// <summary>Index of this worker.</summary>
    int Rank { get; }

    /// <summary>Number of workers.</summary>
    int Size { get; }

    /// <summary>Gives as many bytes as every other worker does.</summary>
    /// <param name="mine">The bytes of this worker.</param>
    /// <param name="all">Gets those of all.</param>
    void AllGather(ReadOnlySpan<byte> mine, Span<byte> all);

    /// <summary>Gives bytes, of which every worker has its own number.</summary>
    /// <param name="mine">The bytes of this worker.</param>
    /// <param name="all">Gets those of all.</param>
    /// <param name="counts">How many are of each.</param>
    void AllGather(ReadOnlySpan<byte> mine, Span<byte> all, int[] counts);

    /// <summary>Ends the processes of all workers at once.</summary>
    /// <param name="exitCode">Their exit code.</param>
    void Abort(int exitCode);
}

/// <summary>The workers were stopped: one of them was canceled or reached the end of its time, and all of them know.</summary>
/// <param name="reason">A stop that the work reports by name; empty where it was canceled.</param>
internal sealed class WorkersStoppedException(string reason) : OperationCanceledException("The workers were stopped.")
{
    /// <summary>A stop that the work reports by name; empty where it was canceled.</summary>
    public string Reason => reason;
}

/// <summary>The error of a worker, as the others get it.</summary>
internal sealed record WorkerError
{
    private static readonly JsonErrors s_errors = new(ErrorIds.WorkerFailed, ErrorIds.WorkerFailed, "Use the same version of the library on every worker.");

    public required string Id { get; init; }

    public required LoKrErrorKind Kind { get; init; }

    public required string Message { get; init; }

    public string? Advice { get; init; }

    public required string Host { get; init; }

    public static WorkerError Of(Exception exception) => exception is LoKrException known
        ? new() { Id = known.ErrorId, Kind = known.Kind, Message = known.Summary, Advice = known.Advice, Host = Environment.MachineName }
        : new() { Id = ErrorIds.WorkerFailed, Kind = LoKrErrorKind.InvalidOperation, Message = $"{exception.GetType().Name}: {exception.Message}", Host = Environment.MachineName };

    public static WorkerError Parse(ReadOnlySpan<byte> bytes) => JsonRecords.Parse<WorkerError>(Encoding.UTF8.GetString(bytes), "the error of a worker", s_errors);

    public byte[] ToBytes() => Encoding.UTF8.GetBytes(JsonRecords.ToLine(this));

    public LoKrException ToException(int rank) => new(Id, Kind, FormattableString.Invariant($"Worker {rank} on {Host}: {Message}"), Advice) { Target = rank };
}
