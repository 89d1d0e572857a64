// libtorch keeps process-wide state (thread count, random generator); one test at a time keeps numbers repeatable.
using LoKr.Testing;
using Xunit;
using Xunit.Sdk;
using Xunit.v3;

[assembly: Parallelization(Mode = ParallelMode.None)]
[assembly: AssemblyFixture(typeof(TorchFixture))]
