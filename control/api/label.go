package api

// MaxLabel is how long a label may be.
const MaxLabel = 64

// CheckLabel says what is wrong with a label: a word of letters, digits, dots, dashes and underlines, at most MaxLabel. Its
// error has the code BadRequest.
func CheckLabel(s string) error {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return Errorf(BadRequest, "label %q: it is a word of letters, digits, dots, dashes and underlines", shown(s))
		}
	}
	if s == "" || len(s) > MaxLabel {
		return Errorf(BadRequest, "label %q: it has 1 to %d letters", shown(s), MaxLabel)
	}
	return nil
}

// shown is what a message quotes of a text.
func shown(s string) string {
	if len(s) > MaxLabel {
		return s[:MaxLabel] + "..."
	}
	return s
}
