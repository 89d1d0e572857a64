namespace LoKr.Models.Tokenization.Decoders;

/// <summary>One decoder of a tokenizer.json: changes the list of tokens; what the last one leaves is joined to the text.</summary>
internal interface ITokenDecoder
{
    List<string> Decode(List<string> tokens);
}
