using System.Diagnostics.CodeAnalysis;
using System.Runtime.InteropServices;
using Microsoft.ML.Tokenizers;

namespace LoKr.Models.Tokenization.Cores;

/// <summary>
/// BPE: through Microsoft.ML.Tokenizers where it gives the exact result, through <see cref="BpeMerger"/> where not
/// (see there for what that is).
/// </summary>
internal sealed class BpeModel : ITokenModel
{
    // The package removes merged symbols one by one from an array, so its time grows with the square of a piece's length.
    private const int LongestPackagePiece = 512;

    private readonly Vocabulary _vocabulary;
    private readonly bool _ignoreMerges;
    private readonly BpeMerger _merger;
    private readonly BpeTokenizer? _package;
    private readonly PieceCache _cache = new();

    public BpeModel(BpeSettings settings, string file)
    {
        _vocabulary = settings.Vocabulary;
        _ignoreMerges = settings.IgnoreMerges;
        _merger = new BpeMerger(settings, file);
        _package = IsExactInPackage(settings) ? CreatePackage(settings) : null;
    }

    /// <inheritdoc/>
    public int Count => _vocabulary.Count;

    /// <summary>Whether pieces of ordinary length go through Microsoft.ML.Tokenizers.</summary>
    public bool UsesPackage => _package is not null;

    /// <inheritdoc/>
    public void Encode(string piece, List<int> ids)
    {
        if (_cache.TryGet(piece, ids))
        {
            return;
        }

        int from = ids.Count;
        if (_ignoreMerges && _vocabulary.TryGetId(piece, out int whole))
        {
            ids.Add(whole);
        }
        else if (_package is not null && piece.Length <= LongestPackagePiece)
        {
            ids.AddRange(_package.EncodeToIds(piece, considerPreTokenization: false, considerNormalization: false));
        }
        else
        {
            _merger.Encode(piece, ids);
        }

        _cache.Add(piece, CollectionsMarshal.AsSpan(ids)[from..]);
    }

    /// <inheritdoc/>
    public bool TryGetId(string token, out int id) => _vocabulary.TryGetId(token, out id);

    /// <inheritdoc/>
    public bool TryGetToken(int id, [NotNullWhen(true)] out string? token) => _vocabulary.TryGetToken(id, out token);

    private static bool IsExactInPackage(BpeSettings settings) =>
        !settings.ByteFallback
        && settings.ContinuingPrefix.Length == 0
        && settings.Vocabulary.IsOneToOne
        && settings.Vocabulary.Count > 0
        && (settings.UnknownToken is null || settings.Vocabulary.TryGetId(settings.UnknownToken, out _))
        && settings.Merges.All(merge => !merge.Left.Contains(' ', StringComparison.Ordinal) && !merge.Right.Contains(' ', StringComparison.Ordinal))
        && settings.Merges.Distinct().Count() == settings.Merges.Count;

    private static BpeTokenizer CreatePackage(BpeSettings settings) => BpeTokenizer.Create(new BpeOptions(settings.Vocabulary.Ids)
    {
        Merges = settings.Merges.Select(merge => $"{merge.Left} {merge.Right}"),
        UnknownToken = settings.UnknownToken,
        EndOfWordSuffix = settings.EndOfWordSuffix.Length == 0 ? null : settings.EndOfWordSuffix,
        FuseUnknownTokens = settings.FuseUnknown,
    });
}
