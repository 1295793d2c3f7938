package config

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"uvs/health"
)

var update = flag.Bool("update", false, "write what Parse says into testdata/wrong.txt; read the difference before you commit it")

// wrongFile is a case of testdata/wrong.txt: "== name", the file, "--", the messages.
type wrongFile struct{ name, data, messages string }

func readWrong(t testing.TB) (cases []wrongFile) {
	t.Helper()
	text, err := os.ReadFile("testdata/wrong.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split("\n"+string(text), "\n== ")[1:] {
		name, rest, _ := strings.Cut(part, "\n")
		data, messages, ok := strings.Cut(rest, "\n--\n")
		if !ok {
			data, messages, _ = strings.Cut(rest+"\n", "\n--\n")
		}
		cases = append(cases, wrongFile{name, data + "\n", strings.TrimSpace(messages)})
	}
	return cases
}

func TestEveryMistakeIsNamedWithItsPlaceAndWhatWasMeant(t *testing.T) {
	cases := readWrong(t)
	var out bytes.Buffer
	kinds := strings.Join(health.Kinds(), ", ") // there are ever more
	for _, c := range cases {
		data := strings.ReplaceAll(c.data, "→", "\t")
		_, err := Parse("uvs.yaml", []byte(data))
		got := ""
		if err != nil {
			got = strings.ReplaceAll(err.Error(), kinds, "KINDS")
		}
		fmt.Fprintf(&out, "== %s\n%s\n--\n%s\n", c.name, strings.TrimSuffix(c.data, "\n"), got)
		if got != c.messages && !*update {
			t.Errorf("%s: Parse says\n%s\nwant\n%s", c.name, got, c.messages)
		}
		if err == nil {
			t.Errorf("%s: Parse accepts it", c.name)
		}
	}
	if *update {
		if err := os.WriteFile("testdata/wrong.txt", out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if len(cases) < 80 {
		t.Errorf("%d wrong files, at least 80 are wanted", len(cases))
	}
}
