package formats

// Severities of a Problem.
const (
	SeverityError   = "error"   // the file is not valid
	SeverityWarning = "warning" // readers disagree about it, or a figure may surprise
)

// A Problem is one fault of a file, as `weigh check` lists them.
type Problem struct {
	Severity string `json:"severity"` // SeverityError or SeverityWarning
	Code     string `json:"code"`     // kebab-case, stable
	Message  string `json:"message"`  // what was found and what would do
	Field    string `json:"field"`    // the field at fault
	Offset   int64  `json:"offset"`   // byte offset from the start of the file, -1 when the fault is no single place
}
