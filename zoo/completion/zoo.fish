# In ~/.config/fish/config.fish: zoo completion fish | source
function __zoo_complete
    set -l last (commandline -ct)
    set -l words (commandline -opc) "$last"
    set -l found (zoo --complete $words[2..-1] 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else # a file, alone or after an option's =
        set -l option (string match -r -- '^--[^=]*=' $last)
        printf "$option%s\n" (__fish_complete_path (string replace -- "$option" '' $last))
    end
end
complete -c zoo -f -a '(__zoo_complete)'
