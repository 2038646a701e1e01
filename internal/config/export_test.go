package config

// ParseDotEnv reads what ReadDotEnv reads out of a file.
func ParseDotEnv(text string) ([]string, error) { return parseDotEnv(".env", text) }
