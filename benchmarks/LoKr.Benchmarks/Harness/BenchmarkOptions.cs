namespace LoKr.Benchmarks.Harness;

/// <summary>The command line.</summary>
internal sealed record BenchmarkOptions
{
    /// <summary>Options of the command line.</summary>
    public const string Usage = """
        usage: LoKr.Benchmarks [--quick] [--only NAME]... [--device auto|cpu|cuda] [--check] [--list]
          --quick    fewer rounds; everything in under three minutes
          --only     only benchmarks whose name starts with NAME
          --device   where tensors live; auto takes a GPU where there is one
          --check    exit status 1 when a target is missed
          --list     names of the benchmarks
        """;

    /// <summary>First argument of the processes that <see cref="Cases.LayerMemoryCase"/> starts.</summary>
    public const string ProbeName = "--probe-layer-memory";

    /// <summary>Fewer rounds.</summary>
    public bool Quick { get; init; }

    /// <summary>Beginnings of names to run; empty for all.</summary>
    public IReadOnlyList<string> Only { get; init; } = [];

    /// <summary>Device as <see cref="Core.Runtime.DeviceSelector"/> takes it.</summary>
    public string Device { get; init; } = "auto";

    /// <summary>Whether a missed target fails the run.</summary>
    public bool Check { get; init; }

    /// <summary>Whether to list the names and stop.</summary>
    public bool List { get; init; }

    /// <summary>Whether a benchmark was asked for.</summary>
    public bool Selects(string name) => Only.Count == 0 || Only.Any(start => name.StartsWith(start, StringComparison.OrdinalIgnoreCase));

    /// <summary>Reads the command line; null, and why, when it cannot be understood.</summary>
    public static BenchmarkOptions? Parse(IReadOnlyList<string> arguments, out string? problem)
    {
        BenchmarkOptions options = new();
        problem = null;
        for (int i = 0; i < arguments.Count; i++)
        {
            string? value = i + 1 < arguments.Count ? arguments[i + 1] : null;
            switch (arguments[i])
            {
                case "--quick":
                    options = options with { Quick = true };
                    break;
                case "--check":
                    options = options with { Check = true };
                    break;
                case "--list":
                    options = options with { List = true };
                    break;
                case "--only" when value is not null:
                    options = options with { Only = [.. options.Only, .. value.Split(',')] };
                    i++;
                    break;
                case "--device" when value is not null:
                    options = options with { Device = value };
                    i++;
                    break;
                default:
                    problem = $"'{arguments[i]}' is not understood{(arguments[i] is "--only" or "--device" ? ": its value is missing" : "")}.";
                    return null;
            }
        }

        return options;
    }
}
