namespace LoKr.Core.Adapters;

/// <summary>One adapter on one base layer: factors, scaling, dropouts. Adds its contribution to the base output without building w1 ⊗ w2.</summary>
public sealed class LoKrLayer
{
    internal LoKrLayer() => throw new NotImplementedException();

    /// <summary>Full name of the base layer.</summary>
    public string ModuleName => throw new NotImplementedException();

    /// <summary>The factors.</summary>
    public KroneckerFactors Factors => throw new NotImplementedException();

    /// <summary>Rank from the config or its pattern.</summary>
    public int R => throw new NotImplementedException();

    /// <summary>Alpha from the config or its pattern.</summary>
    public double Alpha => throw new NotImplementedException();

    /// <summary>What w1 ⊗ w2 is multiplied with.</summary>
    public double Scaling => throw new NotImplementedException();

    /// <summary>How often the layer has run since it was attached; zero after a training step means that the base layer never fires its hook.</summary>
    public long CallCount => throw new NotImplementedException();
}
