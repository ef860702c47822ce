"""The same eight programs in every language."""

from __future__ import annotations

from dataclasses import dataclass

LINE, LINES = "x" * 49, 100_000
OUTPUT_BYTES = (len(LINE) + 1) * LINES
"""What `output` writes: 5 MB."""


@dataclass(frozen=True)
class Programs:
    """Programs of one language.

    `hello` writes "hello"; `greet` reads a name and writes "hello NAME"; `refused` is no program; `fails` ends with an
    error that nobody catches, in which the word "wrong" occurs; `leaves` ends with 5; `loops` never ends; `output`
    writes 5 MB; `writes` leaves "kept" in the file kept.txt, and `reads` shows what is in it.
    """

    hello: str
    greet: str
    refused: str
    fails: str
    leaves: str
    loops: str
    output: str
    writes: str
    reads: str


def _java(body: str) -> str:
    return (
        "import java.nio.file.*;\nimport java.util.*;\n"
        f"public class Main {{ public static void main(String[] args) throws Exception {{ {body} }} }}"
    )


def _go(body: str, *packages: str) -> str:
    imports = "".join(f'import "{package}"\n' for package in packages)
    return f"package main\n{imports}func main() {{ {body} }}\n"


def _cpp(body: str) -> str:
    headers = "".join(f"#include <{header}>\n" for header in ("fstream", "iostream", "stdexcept", "string"))
    return f"{headers}int main() {{ {body} }}\n"


PROGRAMS = {
    "bash": Programs(
        hello="echo hello",
        greet='read -r name; echo "hello $name"',
        refused="if then",
        fails='set -u; echo "$wrong"',
        leaves="exit 5",
        loops="while :; do :; done",
        output=f"yes {LINE} | head -n {LINES}",
        writes="echo kept > kept.txt",
        reads="cat kept.txt",
    ),
    "cpp": Programs(
        hello=_cpp('std::cout << "hello" << std::endl;'),
        greet=_cpp('std::string name; std::getline(std::cin, name); std::cout << "hello " << name << std::endl;'),
        refused="int main() { return nothing; }",
        fails=_cpp('throw std::runtime_error("wrong");'),
        leaves="int main() { return 5; }",
        loops="int main() { volatile int x = 0; for (;;) x = x + 1; }",
        output=_cpp(f'for (int i = 0; i < {LINES}; i++) std::cout << "{LINE}\\n";'),
        writes=_cpp('std::ofstream("kept.txt") << "kept" << std::endl;'),
        reads=_cpp('std::cout << std::ifstream("kept.txt").rdbuf();'),
    ),
    "go": Programs(
        hello=_go('fmt.Println("hello")', "fmt"),
        greet=_go('in := bufio.NewScanner(os.Stdin); in.Scan(); fmt.Println("hello", in.Text())', "bufio", "fmt", "os"),
        refused=_go("nothing"),
        fails=_go('panic("wrong")'),
        leaves=_go("os.Exit(5)", "os"),
        loops=_go("for { }"),
        output=_go(f'fmt.Print(strings.Repeat("{LINE}\\n", {LINES}))', "fmt", "strings"),
        writes=_go('os.WriteFile("kept.txt", []byte("kept\\n"), 0o644)', "os"),
        reads=_go('text, _ := os.ReadFile("kept.txt"); fmt.Print(string(text))', "fmt", "os"),
    ),
    "java": Programs(
        hello=_java('System.out.println("hello");'),
        greet=_java('System.out.println("hello " + new Scanner(System.in).nextLine());'),
        refused="public class Main { int }",
        fails=_java('throw new IllegalStateException("wrong");'),
        leaves=_java("System.exit(5);"),
        loops=_java("for (;;) { }"),
        output=_java(f'System.out.print("{LINE}\\n".repeat({LINES})); System.out.flush();'),
        writes=_java('Files.writeString(Path.of("kept.txt"), "kept\\n");'),
        reads=_java('System.out.print(Files.readString(Path.of("kept.txt")));'),
    ),
    "javascript": Programs(
        hello="console.log('hello')",
        greet="console.log('hello', require('fs').readFileSync(0, 'utf8').trim())",
        refused="let = ;",
        fails="throw new Error('wrong')",
        leaves="process.exit(5)",
        loops="for (;;) { }",
        output=f"process.stdout.write('{LINE}\\n'.repeat({LINES}))",
        writes="require('fs').writeFileSync('kept.txt', 'kept\\n')",
        reads="process.stdout.write(require('fs').readFileSync('kept.txt'))",
    ),
    "python": Programs(
        hello="print('hello')",
        greet="print('hello', input())",
        refused="def :",
        fails="raise ValueError('wrong')",
        leaves="raise SystemExit(5)",
        loops="while True: pass",
        output=f"print('{LINE}\\n' * {LINES}, end='')",
        writes="open('kept.txt', 'w').write('kept\\n')",
        reads="print(open('kept.txt').read(), end='')",
    ),
    "r": Programs(
        hello="cat('hello\\n')",
        greet="name <- readLines(file('stdin'), n = 1); cat('hello ', name, '\\n', sep = '')",
        refused="x <- (",
        fails="stop('wrong')",
        leaves="quit(status = 5)",
        loops="repeat { }",
        output=f"cat(rep('{LINE}\\n', {LINES}), sep = '')",
        writes="writeLines('kept', 'kept.txt')",
        reads="writeLines(readLines('kept.txt'))",
    ),
    "ruby": Programs(
        hello="puts 'hello'",
        greet='puts "hello #{gets}"',
        refused="def",
        fails="raise 'wrong'",
        leaves="exit 5",
        loops="loop { }",
        output=f'print "{LINE}\\n" * {LINES}',
        writes="File.write('kept.txt', \"kept\\n\")",
        reads="print File.read('kept.txt')",
    ),
}
