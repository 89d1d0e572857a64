using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;
using LoKr.Core.IO;

namespace LoKr.PowerShell.Hosting;

/// <summary>
/// A Job or a CronJob of Kubernetes that runs a script with the exit codes of a job. Of a list it is an Indexed Job: each pod does the job of its
/// index, and one that cannot end well fails by itself.
/// </summary>
internal sealed record KubernetesManifest
{
    // Exit codes with which another start would end the same way.
    private const string Final = "3, 6, 8";

    // exec lets PowerShell get the signals; 2 (nothing is new) and 4 (not better) are not failures, so the script is run by a shell that says so.
    private const string Runner = "trap 'kill -TERM $pid' TERM; \"$@\" & pid=$!; wait $pid; code=$?; while kill -0 $pid 2>/dev/null; do wait $pid; code=$?; done; case $code in 2|4) code=0;; esac; exit $code";

    private static readonly JsonSerializerOptions s_json = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>Name of the job or of the list.</summary>
    public required string Name { get; init; }

    /// <summary>The command of a pod: PowerShell, its arguments, and the script.</summary>
    public required IReadOnlyList<string> Command { get; init; }

    /// <summary>The folder that a pod starts in.</summary>
    public required string WorkingFolder { get; init; }

    /// <summary>Where the volume is mounted.</summary>
    public required string Mount { get; init; }

    /// <summary>Image of the container.</summary>
    public required string Image { get; init; }

    /// <summary>Claim of the volume.</summary>
    public required string VolumeClaim { get; init; }

    /// <summary>Jobs of the list; null for one job without an index.</summary>
    public int? Count { get; init; }

    /// <summary>Pods of a list at the same time; null for all that the cluster has room for.</summary>
    public int? MaxConcurrent { get; init; }

    /// <summary>Threads of each job of a list.</summary>
    public int Threads { get; init; } = 1;

    /// <summary>A Job that runs once.</summary>
    public string Job() => $"""
        # kubectl apply -f this file; kubectl delete job {DnsName()} before it is applied again. The claim holds the folders of the jobs; the image has pwsh, the module and libtorch.
        # Kubernetes 1.29 or later.
        apiVersion: batch/v1
        kind: Job
        metadata:
          name: {Yaml(DnsName())}
        spec:
        {Indent(Spec(), 2)}

        """;

    /// <summary>A CronJob that runs every day.</summary>
    /// <param name="at">Time of the day.</param>
    public string CronJob(TimeOnly at) => $"""
        # kubectl apply -f this file. The claim holds the folder of the job; the image has pwsh, the module and libtorch.
        apiVersion: batch/v1
        kind: CronJob
        metadata:
          name: {Yaml(DnsName())}
        spec:
          schedule: {Yaml(string.Create(CultureInfo.InvariantCulture, $"{at.Minute} {at.Hour} * * *"))}
          concurrencyPolicy: Forbid
          startingDeadlineSeconds: 3600
          jobTemplate:
            spec:
        {Indent(Spec(), 6)}

        """;

    private string Spec() => $"""
        {(Count is int count ? Indexed(count) : "backoffLimit: 3")}
        podFailurePolicy:
          rules:
          # 75: stopped with a checkpoint. Another pod goes on, and it does not count as a failure.
          - action: Ignore
            onExitCodes:
              containerName: lokr
              operator: In
              values: [75]
          - action: Ignore
            onPodConditions:
            - type: DisruptionTarget
          # An invalid job, a missing model, and a training that diverges end the same way every time.
          - action: {(Count is null ? "FailJob" : "FailIndex")}
            onExitCodes:
              containerName: lokr
              operator: In
              values: [{Final}]
        template:
          spec:
            restartPolicy: Never
            # A training ends with its step and a checkpoint.
            terminationGracePeriodSeconds: 600
            containers:
            - name: lokr
              image: {Yaml(Image)}
              workingDir: {Yaml(WorkingFolder)}
              command: ["/bin/sh", "-c", {Yaml(Runner)}, "sh"]
              args: [{string.Join(", ", Command.Select(Yaml))}]
        {Indent(Count is null ? "" : Resources(), 6)}      volumeMounts:
              - name: job
                mountPath: {Yaml(Mount)}
            volumes:
            - name: job
              persistentVolumeClaim:
                claimName: {Yaml(VolumeClaim)}
        """;

    private string Indexed(int count) => string.Create(CultureInfo.InvariantCulture, $"""
        completionMode: Indexed
        completions: {count}
        parallelism: {MaxConcurrent ?? count}
        # Each index has its own failures, so that one job does not end the others.
        backoffLimitPerIndex: 3
        """);

    private string Resources() => string.Create(CultureInfo.InvariantCulture, $"""
        env:
        - name: LOKR_THREADS
          value: "{Threads}"
        resources:
          requests:
            cpu: "{Threads}"

        """);

    private static string Indent(string text, int spaces) => string.Join('\n', text.Split('\n').Select(line => line.Length == 0 ? "" : new string(' ', spaces) + line));

    // JSON's texts are YAML's.
    private static string Yaml(string text) => JsonSerializer.Serialize(text, s_json);

    // Names of objects are labels of DNS; a hash keeps those of other letters apart.
    private string DnsName()
    {
        string plain = string.Concat(Name.ToLowerInvariant().Select(static c => char.IsAsciiLetterOrDigit(c) ? c : '-')).Trim('-');
        return plain == Name && plain.Length <= 40 ? $"lokr-{plain}"
            : $"lokr-{plain[..Math.Min(plain.Length, 31)]}-{ContentHash.OfText(Name)[..8]}".Replace("--", "-", StringComparison.Ordinal);
    }
}
