"`llm-usage`, and `python -m llm_usage`: it reads the words first, and imports what does the work only if there is some"

def main():
    import gc
    gc.set_threshold(100_000) # a command is over before it has garbage worth looking for
    from .options import parsed
    a = parsed()
    from .cli import execute
    gc.freeze() # nor is there any in what it imported, through which Python would look as it ends
    execute(a)

if __name__=='__main__': main()
