namespace LoKr.Core.Chat;

/// <summary>A loop and what templates read of it. Items are taken when they are needed: a condition of the loop sees what earlier turns have set.</summary>
/// <param name="line">Its line, for errors.</param>
/// <param name="items">What it takes.</param>
/// <param name="length">Their number; null where it is not known before they are taken.</param>
internal sealed class TemplateLoop(int line, IEnumerable<object?> items, long? length)
{
    private TemplateGenerator _items = new(items);
    private object? _after = TemplateCall.Absent;
    private object? _before = TemplateCall.Absent;
    private TemplateList? _changed;
    private long? _length = length;
    private long _index = -1;

    /// <summary>The item of this turn.</summary>
    public object? Current { get; private set; } = TemplateCall.Absent;

    /// <summary>Whether there was no turn.</summary>
    public bool IsEmpty => _index < 0;

    /// <summary>Number of turns; takes all items where it is not known.</summary>
    public long Length
    {
        get
        {
            if (_length is null)
            {
                TemplateList rest = new(_items.Rest());
                _items = new(rest);
                _length = rest.Count + _index + 1 + (IsAbsent(_after) || ReferenceEquals(_after, TemplateGenerator.End) ? 0 : 1);
            }

            return _length.Value;
        }
    }

    /// <summary>Goes to the next item; false behind the last one.</summary>
    public bool Next()
    {
        object? next = IsAbsent(_after) ? _items.Next() : _after;
        _after = TemplateCall.Absent;
        if (ReferenceEquals(next, TemplateGenerator.End))
        {
            return false;
        }

        (_before, Current) = (Current, next);
        _index++;
        return true;
    }

    /// <summary>An attribute of <c>loop</c>.</summary>
    public object? Attribute(string name) => name switch
    {
        "index" => _index + 1,
        "index0" => _index,
        "revindex" => Length - _index,
        "revindex0" => Length - _index - 1,
        "first" => _index == 0,
        "last" => ReferenceEquals(Peek(), TemplateGenerator.End),
        "length" => Length,
        "previtem" => _index == 0 ? new TemplateUndefined(name) : _before,
        "nextitem" => ReferenceEquals(Peek(), TemplateGenerator.End) ? new TemplateUndefined(name) : Peek(),
        "depth" => 1L,
        "depth0" => 0L,
        "cycle" => (TemplateFunction)Cycle,
        "changed" => (TemplateFunction)((_, _, arguments) => Changed(arguments)),
        _ => new TemplateUndefined(name),
    };

    private static bool IsAbsent(object? value) => ReferenceEquals(value, TemplateCall.Absent);

    private object? Peek()
    {
        _after = IsAbsent(_after) ? _items.Next() : _after;
        return _after;
    }

    private object? Cycle(TemplateRun run, int callLine, TemplateArguments arguments) => arguments.Positional.Count > 0
        ? arguments.Positional[(int)(_index % arguments.Positional.Count)]
        : throw TemplateError.Failed(line, "'cycle' needs values");

    private bool Changed(TemplateArguments arguments)
    {
        TemplateList values = TemplateList.Tuple(arguments.Positional);
        bool isOther = _changed is null || !TemplateValues.AreEqual(_changed, values);
        _changed = values;
        return isOther;
    }
}
