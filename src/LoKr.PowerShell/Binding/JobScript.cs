using System.Management.Automation.Language;
using System.Text.Json.Nodes;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Runs;

namespace LoKr.PowerShell.Binding;

/// <summary>
/// Reads job files. A .psd1 file is parsed and never run: its values are constants, lists and hashtables, by the rules of
/// Import-PowerShellDataFile. The one script block, for a notification, is kept as text.
/// </summary>
internal sealed class JobScript
{
    private const string ScriptKey = "notify.script";

    private readonly string _path;
    private readonly Dictionary<string, int> _lines = new(StringComparer.OrdinalIgnoreCase);

    private JobScript(string path) => _path = path;

    /// <summary>Reads a job file by its extension.</summary>
    /// <param name="path">Full path.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.JobInvalid"/> naming file and line; <c>LoKr.FileNotReadable</c>.</exception>
    public static JobDocument Read(string path) => Path.GetExtension(path).ToUpperInvariant() switch
    {
        ".PSD1" => new JobScript(path).Parse(),
        ".JSON" => JobDocument.ReadJson(path),
        _ => throw JobDocument.Invalid(path, 1, "A job file ends in .psd1 or .json."),
    };

    /// <summary>Reads a job that can be run.</summary>
    /// <param name="path">Full path.</param>
    /// <exception cref="LoKrException">As for <see cref="Read"/>.</exception>
    public static LoKrJob ReadJob(string path)
    {
        JobDocument document = Read(path);
        LoKrJob job = JobFile.Read(document);
        return CheckCode(document, job).FirstOrDefault() is JobProblem problem ? throw JobDocument.Invalid(document.Path, problem.Line, problem.Message) : job;
    }

    /// <summary>Problems of the PowerShell code in a job.</summary>
    /// <param name="document">Its file.</param>
    /// <param name="job">The job.</param>
    public static IEnumerable<JobProblem> CheckCode(JobDocument document, LoKrJob job)
    {
        if (job.Notify?.Script is string code)
        {
            Parser.ParseInput(code, out _, out ParseError[] errors);
            foreach (ParseError error in errors)
            {
                yield return new(document.LineOf(ScriptKey), ScriptKey, $"'{ScriptKey}' is not PowerShell code: {error.Message}");
            }
        }
    }

    private JobDocument Parse()
    {
        ScriptBlockAst script = Parser.ParseInput(FileSystem.ReadText(_path), _path, out _, out ParseError[] errors);
        if (errors.Length > 0)
        {
            throw JobDocument.Invalid(_path, errors[0].Extent.StartLineNumber, errors[0].Message);
        }

        return script is { ParamBlock: null, BeginBlock: null, ProcessBlock: null, EndBlock.Statements: [StatementAst only] } && Expression(only) is HashtableAst table
            ? new JobDocument(_path, Table(table, ""), _lines)
            : throw JobDocument.Invalid(_path, script.Extent.StartLineNumber, "The file is not one hashtable: @{ … }.");
    }

    private static ExpressionAst? Expression(StatementAst statement) =>
        statement is PipelineAst { PipelineElements: [CommandExpressionAst { Redirections.Count: 0 } element] } ? element.Expression : null;

    private JsonObject Table(HashtableAst table, string key)
    {
        JsonObject values = [];
        foreach ((ExpressionAst name, StatementAst statement) in table.KeyValuePairs)
        {
            string own = Constant(name, key)?.ToString() ?? "";
            string full = key.Length == 0 ? own : $"{key}.{own}";
            if (!_lines.TryAdd(full, name.Extent.StartLineNumber))
            {
                throw JobDocument.Invalid(_path, name.Extent.StartLineNumber, $"The key '{full}' is there twice.");
            }

            values[own] = Expression(statement) is ExpressionAst value ? Value(value, full)
                : throw JobDocument.Invalid(_path, statement.Extent.StartLineNumber, $"'{full}' is code ({statement.Extent.Text}); write a text in quotes.");
        }

        return values;
    }

    private JsonNode? Value(ExpressionAst value, string key) => value switch
    {
        HashtableAst table => Table(table, key),
        ConvertExpressionAst { Type.TypeName.FullName: string type, Child: HashtableAst table } when type.Equals("ordered", StringComparison.OrdinalIgnoreCase) => Table(table, key),
        ArrayLiteralAst list => new JsonArray([.. list.Elements.Select(item => Value(item, key))]),
        ArrayExpressionAst { SubExpression.Statements: var statements } => new JsonArray([.. statements.SelectMany(statement => Items(statement, key))]),
        ParenExpressionAst { Pipeline: StatementAst inner } when Expression(inner) is ExpressionAst one => Value(one, key),
        ScriptBlockExpressionAst block when key.Equals(ScriptKey, StringComparison.OrdinalIgnoreCase) => JsonValue.Create(block.ScriptBlock.Extent.Text[1..^1].Trim()),
        ScriptBlockExpressionAst => throw JobDocument.Invalid(_path, value.Extent.StartLineNumber, $"'{key}' is a script block; only '{ScriptKey}' can be one."),
        _ => Constant(value, key),
    };

    private IEnumerable<JsonNode?> Items(StatementAst statement, string key) => Expression(statement) switch
    {
        ArrayLiteralAst list => list.Elements.Select(item => Value(item, key)),
        ExpressionAst one => [Value(one, key)],
        _ => throw JobDocument.Invalid(_path, statement.Extent.StartLineNumber, $"'{key}' has code ({statement.Extent.Text}); write texts in quotes."),
    };

    private JsonValue? Constant(ExpressionAst value, string key)
    {
        object? constant;
        try
        {
            constant = value.SafeGetValue();
        }
        catch (InvalidOperationException)
        {
            throw JobDocument.Invalid(_path, value.Extent.StartLineNumber, $"'{key}' is not a constant: {value.Extent.Text}");
        }

        return constant switch
        {
            null => null,
            bool flag => JsonValue.Create(flag),
            string text => JsonValue.Create(text),
            sbyte or byte or short or ushort or int or uint or long => JsonValue.Create(Convert.ToInt64(constant, System.Globalization.CultureInfo.InvariantCulture)),
            float or double or decimal => JsonValue.Create(Convert.ToDouble(constant, System.Globalization.CultureInfo.InvariantCulture)),
            _ => throw JobDocument.Invalid(_path, value.Extent.StartLineNumber, $"'{key}' is a {constant.GetType().Name}, not a text, a number, true or false."),
        };
    }
}
