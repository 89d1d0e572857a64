using System.Buffers.Binary;
using System.Numerics;
using System.Text;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Model;

namespace LoKr.Core.Runs;

/// <summary>
/// <c>events.out.tfevents.*</c>: the numbers of the steps for TensorBoard, as TFRecords of <c>Event</c> messages (tensorflow/core/util/event.proto). The
/// bytes depend only on the beginning of the run and its steps, so that a run that goes on writes the same ones again; a writer that only appends
/// would leave steps there that the run takes twice.
/// </summary>
internal sealed class EventFile : IDisposable
{
    private const string Version = "brain.Event:2";

    private readonly FileStream _stream;
    private readonly string _path;
    private readonly DateTime _begin;

    private EventFile(FileStream stream, string path, DateTime begin) => (_stream, _path, _begin) = (stream, path, begin);

    /// <summary>Name of the file of a run that began at a time, in UTC.</summary>
    public static string NameOf(DateTime begin) => FormattableString.Invariant($"events.out.tfevents.{(long)Seconds(begin)}.lokr");

    /// <summary>Opens the file of a run to go on after its first steps; what follows them is cut off.</summary>
    /// <param name="path">The file; created where it does not exist.</param>
    /// <param name="begin">When the run began, in UTC.</param>
    /// <param name="history">The steps that stay.</param>
    /// <exception cref="LoKrException"><c>LoKr.FileNotWritable</c>.</exception>
    public static EventFile Open(string path, DateTime begin, IEnumerable<LoKrTrainingStep> history)
    {
        try
        {
            FileStream stream = new(path, FileMode.OpenOrCreate, FileAccess.Write, FileShare.ReadWrite | FileShare.Delete, 1);
            EventFile file = new(stream, path, begin);
            using MemoryStream before = new();
            before.Write(Record(Event(Seconds(begin), step: 0, version: Version)));
            foreach (LoKrTrainingStep step in history)
            {
                before.Write(file.Encode(step));
            }

            stream.Write(before.GetBuffer().AsSpan(0, (int)before.Length));
            stream.SetLength(before.Length);
            return file;
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(path, exception);
        }
    }

    /// <summary>Adds a step.</summary>
    public void Add(LoKrTrainingStep step)
    {
        try
        {
            _stream.Write(Encode(step));
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(_path, exception);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _stream.Dispose();

    private byte[] Encode(LoKrTrainingStep step) => Record(Event(Seconds(_begin) + step.Elapsed.TotalSeconds, step.Step, values:
    [
        ("loss", step.Loss), ("learning_rate", step.LearningRate), ("head_learning_rate", step.HeadLearningRate), ("gradient_norm", step.GradientNorm), ("tokens_per_second", step.TokensPerSecond),
        ("evaluation/loss", step.EvaluationLoss), ("evaluation/accuracy", step.Accuracy), ("evaluation/entity_f1", step.EntityF1), ("evaluation/perplexity", step.Perplexity),
        ("evaluation/ndcg_at_10", step.NdcgAt10), ("evaluation/spearman", step.Spearman),
    ]));

    private static double Seconds(DateTime time) => (time - DateTime.UnixEpoch).TotalSeconds;

    // Event: wall_time = 1 (double), step = 2 (int64), file_version = 3, summary = 5; Summary: value = 1; Value: tag = 1, simple_value = 2 (float).
    private static byte[] Event(double time, long step, string? version = null, params (string Tag, double? Value)[] values)
    {
        using MemoryStream message = new();
        Span<byte> number = stackalloc byte[8];
        message.WriteByte(0x09);
        BinaryPrimitives.WriteDoubleLittleEndian(number, time);
        message.Write(number);
        if (version is not null)
        {
            WriteBytes(message, 0x1A, Encoding.UTF8.GetBytes(version));
            return message.ToArray();
        }

        message.WriteByte(0x10);
        WriteVarint(message, (ulong)step);
        using MemoryStream summary = new();
        foreach ((string tag, double? value) in values)
        {
            if (value is double scalar)
            {
                using MemoryStream item = new();
                WriteBytes(item, 0x0A, Encoding.UTF8.GetBytes(tag));
                item.WriteByte(0x15);
                BinaryPrimitives.WriteSingleLittleEndian(number, (float)scalar);
                item.Write(number[..4]);
                WriteBytes(summary, 0x0A, item.ToArray());
            }
        }

        WriteBytes(message, 0x2A, summary.ToArray());
        return message.ToArray();
    }

    private static void WriteBytes(MemoryStream stream, byte field, byte[] bytes)
    {
        stream.WriteByte(field);
        WriteVarint(stream, (ulong)bytes.Length);
        stream.Write(bytes);
    }

    private static void WriteVarint(MemoryStream stream, ulong value)
    {
        for (; value >= 0x80; value >>= 7)
        {
            stream.WriteByte((byte)(value | 0x80));
        }

        stream.WriteByte((byte)value);
    }

    // Length, its checksum, the message, its checksum.
    private static byte[] Record(byte[] message)
    {
        byte[] record = new byte[8 + 4 + message.Length + 4];
        BinaryPrimitives.WriteInt64LittleEndian(record, message.Length);
        BinaryPrimitives.WriteUInt32LittleEndian(record.AsSpan(8), Checksum(record.AsSpan(0, 8)));
        message.CopyTo(record, 12);
        BinaryPrimitives.WriteUInt32LittleEndian(record.AsSpan(12 + message.Length), Checksum(message));
        return record;
    }

    // CRC-32C, masked as TFRecord masks it, because the checksum of data with checksums in them says little.
    private static uint Checksum(ReadOnlySpan<byte> bytes)
    {
        uint crc = uint.MaxValue;
        foreach (byte value in bytes)
        {
            crc = BitOperations.Crc32C(crc, value);
        }

        return BitOperations.RotateRight(~crc, 15) + 0xA282EAD8;
    }
}
