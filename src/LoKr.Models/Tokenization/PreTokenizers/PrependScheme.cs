namespace LoKr.Models.Tokenization.PreTokenizers;

/// <summary>Which pieces get the replacement character of Metaspace in front.</summary>
internal enum PrependScheme
{
    /// <summary>None.</summary>
    Never,

    /// <summary>Only one that begins where the whole input begins.</summary>
    First,

    /// <summary>Every one that does not begin with it.</summary>
    Always,
}
