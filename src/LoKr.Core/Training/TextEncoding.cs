using System.Runtime.ExceptionServices;
using LoKr.Core.Adapters;
using LoKr.Core.Modeling;
using LoKr.Core.Training.Data;
using TorchSharp;

namespace LoKr.Core.Training;

/// <summary>What the text tasks share: checks, tokenising on all cores, tensors.</summary>
internal static class TextEncoding
{
    /// <summary>The model's tokenizer.</summary>
    public static ITextTokenizer RequireTokenizer(LoKrModel model) => model.Tokenizer ?? throw new LoKrException(
        ErrorIds.TokenizerMissing,
        LoKrErrorKind.InvalidOperation,
        $"The model {model.Name} has no tokenizer.",
        "Put its tokenizer files into the model folder and import it again.");

    /// <summary>Throws where there is nothing to learn from.</summary>
    public static void RequireRows(IReadOnlyList<DataRow> rows)
    {
        ArgumentNullException.ThrowIfNull(rows);
        if (rows.Count == 0)
        {
            throw new LoKrException(ErrorIds.DataEmpty, LoKrErrorKind.InvalidData, "There are no rows of data.", "Give at least one.");
        }
    }

    /// <summary>The longest sequence: what was asked for, else what model and tokenizer allow.</summary>
    public static int ResolveMaxLength(int? asked, int modelMaximum, ITextTokenizer tokenizer)
    {
        if (asked > modelMaximum)
        {
            throw new LoKrException(
                ErrorIds.MaxLengthTooLarge,
                LoKrErrorKind.LimitExceeded,
                $"A maximum length of {asked} is more than the {modelMaximum} tokens this model has positions for.",
                $"Use at most {modelMaximum}.") { Target = asked };
        }

        if (asked < 2)
        {
            throw new LoKrException(
                ErrorIds.TrainingOptionInvalid, LoKrErrorKind.InvalidArgument, $"A maximum length of {asked} leaves no text.", "Use at least 2.") { Target = asked };
        }

        return asked ?? Math.Min(modelMaximum, tokenizer.MaxLength ?? modelMaximum);
    }

    /// <summary>Runs a function for every index on all cores; the first exception comes out as it is.</summary>
    public static T[] Parallelize<T>(int count, Func<int, T> function, CancellationToken cancellationToken)
    {
        T[] results = new T[count];
        try
        {
            Parallel.For(0, count, new ParallelOptions { CancellationToken = cancellationToken }, i => results[i] = function(i));
        }
        catch (AggregateException e)
        {
            ExceptionDispatchInfo.Throw(e.InnerExceptions[0]);
        }

        return results;
    }

    /// <summary>A matrix of token ids or mask values on the model's device.</summary>
    public static torch.Tensor Matrix(long[] values, TokenBatch batch, torch.Device device) =>
        torch.tensor(values, [batch.RowCount, batch.Length], device: device);
}
