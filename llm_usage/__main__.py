"`llm-usage`, and `python -m llm_usage`: it reads the words first, and imports what does the work only if there is some"

def main():
    from .options import parsed
    a = parsed()
    from .cli import execute
    execute(a)

if __name__=='__main__': main()
