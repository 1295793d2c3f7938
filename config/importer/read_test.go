package importer

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree writes directives as nested lines, for comparison.
func treeText(list []*directive, indent string) string {
	var b strings.Builder
	for _, d := range list {
		fmt.Fprintf(&b, "%s%s", indent, d.name)
		for _, a := range d.args {
			fmt.Fprintf(&b, " [%s]", a)
		}
		b.WriteByte('\n')
		b.WriteString(treeText(d.block, indent+"  "))
	}
	return b.String()
}

// lim are limits small enough for tests of limits.
var lim = limits{fileBytes: 64 << 10, allBytes: 256 << 10, files: 20, includes: 4, depth: 8, lines: 2000, textBytes: 256 << 10, lineBytes: 4 << 10, blocks: 8}

func TestKeepalivedIsReadAsKeepalivedReadsIt(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"comments", "a 1 # two\nb 2 ! three\n# c\n!d\ne \"#1 !2\" # f\n", "a [1]\nb [2]\ne [#1 !2]\n"},
		{"quotes join what they touch", `x abcd" efg h jkl "mnop abc 'd "e" f' ""`, "x [abcd efg h jkl mnop] [abc] [d \"e\" f] []\n"},
		{"blocks", "a {\n b {\n  c\n }\n}\nd x\n{\n e\n}\nf{\n g }\n", "a\n  b\n    c\nd [x]\n  e\nf\n  g\n"},
		{"escapes in scripts alone", `notify_up "/x \"a b\" \\n" user` + "\n" + `path "\x"`, `notify_up [/x "a b" \n] [user]` + "\n" + `path [\x]` + "\n"},
		{"conditions", "@low a\n@high b\n@^low c\n@^high d\n@low @^high e\n", "a\nd\ne\n"},
		{"definitions are replaced when used", "$BASE=10.2.${SUB}\n$SUB=0\n${BASE}.100/32\n$SUB=10\n${BASE}.100/32\n", "10.2.0.100/32\n10.2.10.100/32\n"},
		{"a definition without braces ends with a blank", "$A=1\nx $A $AB $A.2 ${A}2 ${B}\n", "x [1] [$AB] [$A.2] [12] [${B}]\n"},
		{"conditions and definitions", "@low $P=240\n@high $P=200\np $P\n$IF=@low\n$IF q\n$IF2=@high\n$IF2 r\n", "p [240]\nq\n"},
		{"several lines", "$I= \\\n v ${N} { \\\n  @low a \\\n  @high b \\\n  c ${N} \\\n }\n$N=0\n$I\n$N=1\n$I\n",
			"v [0]\n  a\n  c [0]\nv [1]\n  a\n  c [1]\n"},
		{"several lines in several lines", "$R= \\\n r ${N} { \\\n }\n$V= \\\n v { \\\n $N=1 \\\n $R \\\n $N=2 \\\n $R \\\n }\n$V\n", "v\n  r [1]\n  r [2]\n"},
		{"sequences", "~SEQ(S, 0, 3) a ${S}\n~SEQx(H, 0x90, 0x10, 0xc0) b ${H}\n~SEQ(D, 3, 1) c $D\n~SEQ(E, 2) d $E\n",
			"a [0]\na [1]\na [2]\na [3]\nb [90]\nb [a0]\nb [b0]\nb [c0]\nc [3]\nc [2]\nc [1]\nd [1]\nd [2]\n"},
		{"lists, nested", "~LST({A, B}, {10,1},{20,4}) ~SEQ(C,168,2,170) 192.${C}.${A}.${B}\n", "192.168.10.1\n192.170.10.1\n192.168.20.4\n192.170.20.4\n"},
		{"a sequence of blocks", "$V= \\\n v ${N} { \\\n a \\\n }\n~SEQ(N, 1, 2) $V\n", "v [1]\n  a\nv [2]\n  a\n"},
		{"predefined", "a ${_HASH}x ${_BANG} ${_INSTANCE} ${_RANDOM 7 9}\n", "a [#x] [!] [low] [7]\n"},
		{"a script's $ stays", "script \"echo $HOME ${X:-1}\"\n", "script [echo $HOME ${X:-1}]\n"},
		{"braces that don't match", "a {\n }\n}\nb {\n c\n", "a\nb\n  c\n"},
	} {
		got, _, err := readKeepalived("k.conf", c.text, "low", &files{limits: lim})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if text := treeText(got, ""); text != c.want {
			t.Errorf("%s: read as\n%swant\n%s", c.name, text, c.want)
		}
	}
}

func TestWhatDoesNotEndIsRefused(t *testing.T) {
	var chain strings.Builder
	for i := range 60 {
		fmt.Fprintf(&chain, "$A%d=${A%d}${A%d}\n", i, i+1, i+1)
	}
	for name, text := range map[string]string{
		"a definition of itself":           "$A=${A}\nx ${A}\n",
		"one that grows":                   "$A=a ${A}\nx ${A}\n",
		"lines of themselves":              "$A= \\\n x \\\n $A\n$A\n",
		"doubled":                          chain.String() + "$A60=xxxxxxxx\nx ${A0}\n",
		"sequences of sequences":           "~SEQ(A,1,1000) ~SEQ(B,1,1000) x $A $B\n",
		"a sequence too long":              "~SEQ(A,1,2000000000) x\n",
		"blocks in blocks":                 strings.Repeat("a {\n", 100),
		"a sequence of nothing but itself": "$A=~SEQ(B,1,9) ${A}\n$A\n",
	} {
		if _, _, err := readKeepalived("k.conf", text, "low", &files{limits: lim}); !tooMuch(err) {
			t.Errorf("%s: %v, want a limit", name, err)
		}
	}
}

func TestIncludes(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("main.conf", "include conf.d/*.conf\nincludea {two,three}.inc\ninclude \"with blank.inc\"\ninclude none.inc\ninclude none*.inc\ninclude conf.d\ninclude script.sh\ninclude link.inc\n@low include two.inc\nlast\n", 0o644)
	write("conf.d/b.conf", "b1\ninclude sub/deep.inc\nb2\n", 0o644)
	write("conf.d/a.conf", "a\n", 0o644)
	write("conf.d/c.txt", "not this\n", 0o644)
	write("conf.d/sub/deep.inc", "deep ${_PWD}\n", 0o644)
	write("two.inc", "two\n", 0o644)
	write("three.inc", "three\n", 0o644)
	write("with blank.inc", "blank\n", 0o644)
	write("script.sh", "script\n", 0o755)
	if err := os.Symlink("/dev/zero", filepath.Join(dir, "link.inc")); err != nil {
		t.Fatal(err)
	}
	main := filepath.Join(dir, "main.conf")
	text, err := os.ReadFile(main)
	if err != nil {
		t.Fatal(err)
	}
	tree, notes, err := readKeepalived(main, string(text), "low", &files{limits: lim})
	if err != nil {
		t.Fatal(err)
	}
	want := "a\nb1\ndeep [" + filepath.Join(dir, "conf.d/sub") + "]\nb2\ntwo\nthree\nblank\ninclude [two.inc]\nlast\n"
	if got := treeText(tree, ""); got != want {
		t.Errorf("read\n%swant\n%s", got, want)
	}
	var lost []string
	for _, n := range notes {
		if n.grade == Missing || n.grade == Needless {
			lost = append(lost, strings.ReplaceAll(n.text(), dir+"/", ""))
		}
	}
	if want := []string{"include none.inc", "include none*.inc", "include conf.d", "include script.sh", "include link.inc"}; !slices.Equal(lost, want) {
		t.Errorf("not read: %q, want %q", lost, want)
	}
}

func TestIncludesOfThemselvesEnd(t *testing.T) {
	p := filepath.Join(t.TempDir(), "self.conf")
	if err := os.WriteFile(p, []byte("a\ninclude self.conf\ninclude *.conf\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Import(p, Options{Kind: Keepalived, limits: &lim}); !tooMuch(err) {
		t.Errorf("%v, want a limit", err)
	}
}

func TestNothingButRegularFilesIsRead(t *testing.T) {
	for _, p := range []string{"/dev/zero", "/dev/null", t.TempDir()} {
		if _, err := Import(p, Options{Kind: Keepalived}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: %v", p, err)
		}
	}
	big := filepath.Join(t.TempDir(), "big.conf")
	if err := os.WriteFile(big, make([]byte, lim.fileBytes+1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Import(big, Options{Kind: Keepalived, limits: &lim}); !tooMuch(err) {
		t.Errorf("%v, want a limit", err)
	}
}

func TestBraces(t *testing.T) {
	for in, want := range map[string][]string{
		"a":                   {"a"},
		"foo/{,cat,dog},bar":  {"foo/,bar", "foo/cat,bar", "foo/dog,bar"},
		"{foo/{,cat,dog},ba}": {"foo/", "foo/cat", "foo/dog", "ba"},
		"a{b":                 {"a{b"},
		"a{}b":                {"a{}b"},
		"{a,b}{c,d}":          {"ac", "ad", "bc", "bd"},
	} {
		got, err := braces(in, 100)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("braces(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	if _, err := braces(strings.Repeat("{a,b}", 30), 1000); !tooMuch(err) {
		t.Errorf("2^30 names: %v", err)
	}
}

func TestLdirectordIsReadAsLdirectordReadsIt(t *testing.T) {
	text := "# comment\ncheckinterval = 3\nvirtual=10.0.0.1:80\n\treal=10.0.0.2:80 gate # one\n        request=\"a # b\"\n\n    receive=\"x\"\n   three = 3\nsupervised\nlogfile=\"local0\"\n"
	want := "checkinterval [3]\nvirtual [10.0.0.1:80]\n  real [10.0.0.2:80 gate]\n  request [\"a]\n  receive [x]\nthree [3]\nsupervised\nlogfile [local0]\n"
	got, err := readLdirectord("l.cf", text, &lim)
	if err != nil {
		t.Fatal(err)
	}
	if text := treeText(got, ""); text != want {
		t.Errorf("read as\n%swant\n%s", text, want)
	}
	if d := got[2]; d.name != "three" || d.grade != Missing {
		t.Errorf("a line that is indented too little: %+v", d)
	}
}

func TestPiranhaIsReadAsPiranhaReadsIt(t *testing.T) {
	text := "# comment\nserial_no = 7\nvirtual web one {\n  address = 10.0.0.1 eth0:1\n send = \"GET / HTTP/1.0\\r\\n\\\"\\r\\n\"\n server a {\n  active = 1\n }\n}\n}\nodd\nvirtual b {\n"
	want := "serial_no [7]\nvirtual [web one]\n  address [10.0.0.1] [eth0:1]\n  send [GET / HTTP/1.0\\r\\n\\\"\\r\\n]\n  server [a]\n    active [1]\n}\nodd\nvirtual [b]\n"
	got, err := readPiranha("lvs.cf", text, &lim)
	if err != nil {
		t.Fatal(err)
	}
	if text := treeText(got, ""); text != want {
		t.Errorf("read as\n%swant\n%s", text, want)
	}
}

func TestGuess(t *testing.T) {
	for want, texts := range map[Kind][]string{
		Ipvsadm:    {"-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.1:80 -r 10.0.0.2:80 -g -w 1\n", "# rules\nipvsadm -A -f 7 -s wlc\n"},
		Keepalived: {"! x\nglobal_defs {\n}\n", "include /etc/keepalived/*.conf\n", "virtual_server 10.0.0.1 80 {\n lb_algo rr\n}\n", "$A=1\n$B= \\\n x\n"},
		Ldirectord: {"virtual=10.0.0.1:80\n\treal=10.0.0.2:80 gate\n", "checktimeout=3\nvirtual = 7\n", "virtual6=[2001:db8::1]:80\n"},
		Piranha:    {"serial_no = 1\nprimary = 10.0.0.1\nservice = lvs\n", "virtual web {\n active = 1\n port = 80\n}\n"},
		"":         {"", "hello\n", "[Unit]\nDescription=x\n"},
	} {
		for _, text := range texts {
			if got := guess("file", text); got != want {
				t.Errorf("guess(%q) = %q, want %q", text, got, want)
			}
		}
	}
	for name, want := range map[string]Kind{"/etc/keepalived/keepalived.conf": Keepalived, "ldirectord.cf": Ldirectord, "lvs.cf": Piranha, "uvs.yaml": ""} {
		if got := guess(name, "\n"); got != want {
			t.Errorf("guess(%q) = %q, want %q", name, got, want)
		}
	}
}

// A device named as a certificate is not opened: it may never end.
func TestNoDeviceIsReadAsACertificate(t *testing.T) {
	text := "SSL {\n ca /dev/zero\n}\nvirtual_server 192.0.2.1 443 {\n real_server 192.0.2.2 443 {\n  SSL_GET {\n   url {\n    path /\n   }\n  }\n }\n}\n"
	r, err := importText("k.conf", text, Options{Kind: Keepalived, ConfigID: "low"}, &files{limits: lim})
	if err != nil {
		t.Fatal(err)
	}
	if i := r.Report.Items[1]; i.Name != "ca" || i.Grade != Missing {
		t.Errorf("%+v", i)
	}
}
